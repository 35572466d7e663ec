package oauth2proxy

// row is an option of oauth2-proxy and what becomes of it.
type row struct {
	key     string // as in TOML
	verdict verdict
	text    string // for the report: the key of Postern, how the meaning changed, or what to do instead
	apply   func(d *draft, p *provider, o option)
}

// providerTable are the options of a provider. They are applied to each.
func providerTable() []row {
	return []row{
		// The provider. `provider` itself, id and client_secret_file are used where their fellows are.
		{"provider", kept, "providers, see the name and preset there", nil},
		{"id", kept, "the name below providers", nil},
		{"provider_display_name", kept, "providers.*.title", to("title")},
		{"client_id", kept, "providers.*.client_id", to("client_id")},
		{"client_secret", changed, "providers.*.client_secret takes it from the environment, since secrets are not copied; {file: PATH} does as well", clientSecret},
		{"client_secret_file", kept, "providers.*.client_secret: {file: …}; newlines at its end are dropped", clientSecretFile},
		{"oidc_issuer_url", kept, "providers.*.issuer", issuer},
		{"scope", kept, "providers.*.scopes", scopes},
		{"code_challenge_method", kept, "PKCE with S256 is always on", challengeMethod},
		{"force_code_challenge_method", kept, "PKCE with S256 is always on", challengeMethod},
		{"insecure_oidc_skip_nonce", changed, "the nonce is always verified", nil},

		// Claims and audiences.
		{"oidc_email_claim", kept, "providers.*.claims.email", claim("email", "email")},
		{"oidc_groups_claim", kept, "providers.*.claims.groups", claim("groups", "groups")},
		{"user_id_claim", changed, "providers.*.claims.email, as oauth2-proxy read it; the user's name is the claim sub", userIDClaim},
		{"oidc_audience_claims", kept, "the audience is the claim aud", audienceClaims},
		{"oidc_extra_audiences", kept, "providers.*.extra_audiences", toList("extra_audiences")},
		{"insecure_oidc_allow_unverified_email", kept, "an address counts only where the provider says that it is verified", unsafe(
			"Addresses that the provider did not verify were believed. Can people there name any address as theirs? If none can, write assume_email_verified: true to the provider.")},
		{"insecure_oidc_skip_issuer_verification", kept, "the issuer is always verified", unsafe(
			"Tokens of any issuer were accepted. Which issuer do the provider's tokens name? Write exactly that to the provider's issuer; internal_url says where it is reached, if elsewhere.")},

		// Endpoints and parameters.
		{"skip_oidc_discovery", changed, "an issuer is always discovered, whenever it answers; a start does not wait for it", nil},
		{"login_url", kept, "providers.*.oauth2.authorize_url", endpoint("authorize_url")},
		{"redeem_url", kept, "providers.*.oauth2.token_url", endpoint("token_url")},
		{"profile_url", kept, "providers.*.oauth2.userinfo_url", endpoint("userinfo_url")},
		{"validate_url", unsupported, "a session is as long valid as its tokens", nil},
		{"oidc_jwks_url", unsupported, "keys come from the jwks_uri of the issuer's metadata", nil},
		{"oidc_public_key_files", unsupported, "keys come from the jwks_uri of the issuer's metadata", nil},
		{"skip_claims_from_profile_url", changed, "claims are those of the ID token; identity: userinfo asks for the others too", nil},
		{"prompt", kept, "providers.*.authorize_params.prompt", to("authorize_params.prompt")},
		{"approval_prompt", unsupported, "providers know prompt in its place", nil},
		{"acr_values", changed, "providers.*.authorize_params.acr_values asks for it; to insist on it, write access.acr to routes", to("authorize_params.acr_values")},
		{"resource", kept, "providers.*.authorize_params.resource", to("authorize_params.resource")},
		{"login_url_parameters", kept, "providers.*.authorize_params and start_params", loginParameters},
		{"backend_logout_url", changed, "signing out signs out at the provider too, as its metadata says (end_session_endpoint); logout_uri where it has none", nil},
		{"provider_ca_files", kept, "providers.*.ca_file", caFiles},
		{"use_system_trust_store", changed, "ca_file alone is believed; without it, the system's CAs", nil},

		// Who may enter. What restricted somebody and cannot be said in the same way is a question.
		{"allowed_groups", kept, "routes.*.access.groups", groups},
		{"keycloak_groups", changed, "routes.*.access.groups; Keycloak writes full paths with a slash in front where its mapper is set so", groups},
		{"gitlab_groups", kept, "routes.*.access.groups", groups},
		{"allowed_roles", changed, "routes.*.access.claims, with realm_access.roles; it must be in the ID token (a mapper in Keycloak)", roles},
		{"github_org", kept, "routes.*.access.groups, as ORGANISATION/TEAM", githubOrg},
		{"github_team", kept, "routes.*.access.groups, as ORGANISATION/TEAM", githubTeam},
		{"github_repo", kept, "", restricts("Only people with access to this repository came in. Which teams are they? Write access: {groups: [ORGANISATION/TEAM]}.")},
		{"github_users", kept, "", unsafe("These people came in without being in a team. Shall they still? Write access: {rule: 'preferred_username in [\"NAME\"] || groups.exists(g, g == \"ORGANISATION/TEAM\")'}; names can be changed and taken by others.")},
		{"github_token", unsupported, "teams are asked for with each person's own token", nil},
		{"gitlab_projects", kept, "", restricts("Only members of these projects came in. Which groups are they? Write access: {groups: […]}.")},
		{"bitbucket_team", kept, "", restricts("Only members of this team came in. Who are they? Write access: {emails: […]}.")},
		{"bitbucket_repository", kept, "", restricts("Only people with access to this repository came in. Who are they? Write access: {emails: […]}.")},
		{"google_group", kept, "", restricts(googleGroups)},
		{"google_groups", kept, "", restricts(googleGroups)},
		{"google_admin_email", unsupported, "Google's directory is not asked", nil},
		{"google_service_account_json", unsupported, "Google's directory is not asked", nil},
		{"google_use_application_default_credentials", unsupported, "Google's directory is not asked", nil},
		{"google_target_principal", unsupported, "Google's directory is not asked", nil},

		// Microsoft and login.gov.
		{"azure_tenant", kept, "providers.*.tenant", azureTenant},
		{"azure_graph_group_field", unsupported, "groups are those of the ID token, by their ids", nil},
		{"entra_id_allowed_tenants", kept, "", restricts("Only these directories came in. Each has its own issuer: write one provider for each, with preset: entra and tenant.")},
		{"entra_id_federated_token_auth", unsupported, "write client_auth: private_key_jwt with client_key, or client_secret", nil},
		{"jwt_key", changed, "providers.*.client_key takes it from the environment, since secrets are not copied; {file: PATH} does as well", clientKey},
		{"jwt_key_file", kept, "providers.*.client_key: {file: …}", clientKey},
		{"pubjwk_url", unsupported, "the provider holds the client's public key", nil},
	}
}

const googleGroups = "Only members of these Google groups came in. Postern does not ask Google's directory: who are they? Write access: {emails: […]}, or email_domains."

// isProviderKey tells whether an option is one of a provider's.
func isProviderKey(key string) bool {
	for _, r := range providerTable() {
		if r.key == key {
			return true
		}
	}
	return false
}

// table are all other options.
func table() []row {
	return []row{
		// Files that belong together.
		{"config", unsupported, "give that file to the import too", nil},
		{"alpha_config", unsupported, "give that file to the import too", nil},

		// What browsers see.
		{"redirect_url", kept, "server.public_url; the path is server.prefix with /callback", redirectURL},
		{"relative_redirect_url", kept, "", unsafe("The address followed the Host header of each request. Which hosts are there? Write host to the routes, and leave server.public_url out.")},
		{"proxy_prefix", kept, "server.prefix", set("server.prefix")},
		{"force_https", changed, "server.redirect_listen sends http to https; it is another address than server.listen", nil},
		{"whitelist_domains", kept, "server.return_hosts", returnHosts},

		// Listeners.
		{"http_address", kept, "server.listen", nil},
		{"https_address", kept, "server.listen", nil},
		{"tls_cert_file", kept, "server.tls.cert_file", set("server.tls.cert_file")},
		{"tls_key_file", kept, "server.tls.key_file", set("server.tls.key_file")},
		{"tls_min_version", unsupported, "TLS 1.2 is the least", nil},
		{"tls_cipher_suites", unsupported, "the suites are those that Go holds safe", nil},
		{"metrics_address", changed, "server.admin_listen, beside /healthz and /readyz", metricsAddress},
		{"metrics_secure_address", changed, "server.admin_listen with server.admin.tls", nil},
		{"metrics_tls_cert_file", changed, "server.admin.tls needs server.admin: {token | client_ca}", nil},
		{"metrics_tls_key_file", changed, "server.admin.tls needs server.admin: {token | client_ca}", nil},

		// Whom to believe about the client.
		{"reverse_proxy", kept, "server.trusted_proxies", reverseProxy},
		{"trusted_proxy_ips", kept, "server.trusted_proxies", trustedProxies},
		{"real_client_ip_header", changed, "the client is the last address in X-Forwarded-For or Forwarded that is no trusted proxy", nil},
		{"trusted_ips", kept, "", unsafe("Requests from these addresses passed without sign-in, whoever sent them. What needs that? Write a route with access: public for its paths alone.")},

		// Cookies.
		{"cookie_name", changed, "the cookie is called __Host-postern; session.cookie.name is another name", nil},
		{"cookie_secret", changed, "not used again: `postern keygen` makes a key for session.keys", nil},
		{"cookie_secret_file", changed, "not used again: `postern keygen` makes a key for session.keys", nil},
		{"cookie_domains", changed, "a cookie is for one host alone; on the next host a person is signed in on the way, without being asked", nil},
		{"cookie_path", changed, "the cookie is for the whole host", nil},
		{"cookie_secure", kept, "cookies are Secure wherever browsers see https", cookieSecure},
		{"cookie_httponly", changed, "scripts never see the session's cookie", nil},
		{"cookie_samesite", kept, "session.cookie.same_site", cookieSameSite},
		{"cookie_expire", kept, "session.lifetime", nil},
		{"cookie_refresh", changed, "a token is refreshed shortly before it expires (session.refresh_before), not by its age", nil},
		{"cookie_csrf_per_request", changed, "each sign-in has its own cookie always", nil},
		{"cookie_csrf_per_request_limit", changed, "the oldest cookies of unfinished sign-ins make room by themselves", nil},
		{"cookie_csrf_expire", changed, "how long a sign-in may take is fixed", nil},
		{"cookie_csrf_samesite", changed, "the cookie of a sign-in is Lax, with response_mode: form_post None", nil},
		{"encode_state", changed, "the state is random and needs no encoding", nil},

		// Sessions.
		{"session_store_type", kept, "session.store", nil},
		{"session_cookie_minimal", changed, "no token is ever in a cookie", nil},
		{"session_refresh_lock_duration", changed, "refreshes are single across replicas by themselves", nil},
		{"session_refresh_obtain_timeout", changed, "refreshes are single across replicas by themselves", nil},
		{"session_refresh_retry_period", changed, "refreshes are single across replicas by themselves", nil},
		{"redis_connection_url", kept, "session.store.redis.url, without user and password", nil},
		{"redis_username", kept, "session.store.redis, in url or as username", nil},
		{"redis_password", changed, "session.store.redis.password takes it from the environment, since secrets are not copied; {file: PATH} does as well", nil},
		{"redis_use_sentinel", kept, "session.store.redis.sentinel", nil},
		{"redis_sentinel_master_name", kept, "session.store.redis.sentinel.master", nil},
		{"redis_sentinel_connection_urls", kept, "session.store.redis.sentinel.addresses", nil},
		{"redis_sentinel_password", changed, "session.store.redis.sentinel.password takes it from the environment, since secrets are not copied", nil},
		{"redis_use_cluster", kept, "session.store.redis.cluster", nil},
		{"redis_cluster_connection_urls", kept, "session.store.redis.cluster.addresses", nil},
		{"redis_ca_path", kept, "session.store.redis.ca_file", nil},
		{"redis_insecure_skip_tls_verify", kept, "the server's certificate is always verified", unsafe(
			"The certificate of Redis was not verified. Which CA signed it? Write its file to session.store.redis.ca_file.")},
		{"redis_connection_idle_timeout", unsupported, "idle connections are checked before use", nil},
		{"redis_key_prefix", kept, "session.store.redis.key_prefix", nil},
		{"redis_enforce_single_session", changed, "session.max_sessions_per_user: 1", singleSession},

		// Who may enter.
		{"email_domains", kept, "routes.*.access.email_domains", emailDomains},
		{"authenticated_emails_file", kept, "", emailsFile},
		{"htpasswd_file", kept, "", unsafe("People signed in with a password of this file too. Postern has no such sign-in. How shall they sign in from now on?")},
		{"htpasswd_user_groups", unsupported, "there is no sign-in by htpasswd", nil},
		{"display_htpasswd_form", unsupported, "there is no sign-in by htpasswd", nil},

		// Requests that need no sign-in.
		{"skip_auth_routes", kept, "routes with access: public", skipAuthRoutes},
		{"skip_auth_regex", kept, "routes with access: public", skipAuthRoutes},
		{"skip_auth_preflight", kept, "routes.*.preflight: pass", nil},
		{"skip_auth_strip_headers", changed, "identity headers that a client sends are always removed", nil},
		{"skip_jwt_bearer_tokens", kept, "tokens of clients are removed", unsafe(
			"Programs came in with a token of the provider in place of a session. Which audience do their tokens name? Write access: {bearer_tokens: {audience: …}} to the routes that they use.")},
		{"extra_jwt_issuers", kept, "", unsafe("Tokens of these issuers were accepted for these audiences. Write each as a provider, and access: {bearer_tokens: {provider: NAME, audience: …}} to the routes.")},
		{"bearer_token_login_fallback", changed, "a page navigation with a wrong token is sent to sign in, anything else gets 401", nil},
		{"api_routes", changed, "whether a request is a page navigation is seen from the request itself; everything else gets 401. unauthenticated: deny gives 401 always", nil},
		{"force_json_errors", changed, "who asks for JSON gets JSON", nil},

		// Applications.
		{"upstreams", kept, "routes", upstreams},
		{"proxy_raw_path", kept, "paths are passed on as they are", nil},
		{"pass_host_header", kept, "the application sees the client's Host", nil},
		{"upstream_timeout", changed, "an application has 2 minutes to begin its answer; routes.*.timeout bounds a whole request", nil},
		{"flush_interval", changed, "what an application sends is passed on at once where that matters", nil},
		{"proxy_websockets", changed, "WebSockets are passed on, and closed when the session ends", nil},
		{"disable_keep_alives", unsupported, "connections to applications are used again", nil},
		{"ssl_upstream_insecure_skip_verify", kept, "certificates of applications are always verified", unsafe(
			"The certificates of https applications were not verified. Which CA signed them? Write its file to upstream_tls: {ca_file: PATH} of each such route.")},
		{"ssl_insecure_skip_verify", kept, "certificates are always verified", unsafe(
			"No certificate was verified, not even the provider's: whoever is on the network could sign in as anyone. Which CAs signed them? Write their files to ca_file of the provider.")},

		// Headers for the application.
		{"pass_user_headers", kept, "the default identity headers, or routes.*.headers", nil},
		{"pass_basic_auth", kept, "the default identity headers, or routes.*.headers", nil},
		{"basic_auth_password", changed, "routes.*.headers.Authorization takes it from the environment, since secrets are not copied", nil},
		{"prefer_email_to_user", kept, "routes.*.headers", nil},
		{"pass_access_token", kept, "routes.*.headers.X-Forwarded-Access-Token", nil},
		{"pass_authorization_header", kept, "routes.*.bearer: id_token", nil},
		{"set_xauthrequest", changed, "routes.*.headers, where another proxy asks; browsers no longer see them", nil},
		{"set_authorization_header", changed, "routes.*.bearer: id_token, where another proxy asks; browsers no longer see it", nil},
		{"set_basic_auth", changed, "routes.*.headers.Authorization, where another proxy asks; browsers no longer see it", nil},
		{"inject_request_headers", kept, "routes.*.headers", requestHeaders},
		{"inject_response_headers", kept, "routes.*.headers where another proxy asks, else headers_response", responseHeaders},

		// Pages, probes and logs.
		{"skip_provider_button", changed, "there is no page before the provider's own, unless a route has several providers", nil},
		{"custom_templates_dir", unsupported, "the pages are Postern's", nil},
		{"custom_sign_in_logo", unsupported, "the pages are Postern's", nil},
		{"banner", unsupported, "there is no page before the provider's own", nil},
		{"footer", unsupported, "there is no page before the provider's own", nil},
		{"show_debug_on_error", unsupported, "the reason is in the log, under the id that the page shows", nil},
		{"ping_path", changed, "/healthz on server.admin_listen", nil},
		{"ping_user_agent", unsupported, "probes ask /healthz on server.admin_listen", nil},
		{"ready_path", changed, "/readyz on server.admin_listen", nil},
		{"gcp_healthchecks", unsupported, "probes ask /healthz on server.admin_listen", nil},
		{"silence_ping_logging", kept, "probes are not logged", nil},
		{"request_id_header", changed, "X-Request-Id", nil},
		{"standard_logging", changed, "server.log", nil},
		{"standard_logging_format", unsupported, "server.log.format is json or text", nil},
		{"auth_logging", changed, "server.audit writes who signed in, was refused and signed out", nil},
		{"auth_logging_format", unsupported, "server.audit writes JSON", nil},
		{"request_logging", changed, "requests are counted in /metrics; what is refused is logged", nil},
		{"request_logging_format", unsupported, "server.log.format is json or text", nil},
		{"sensitive_logging", unsupported, "no token is ever logged", nil},
		{"exclude_logging_paths", unsupported, "requests are not logged one by one", nil},
		{"errors_to_info_log", unsupported, "the log goes to standard error", nil},
		{"logging_local_time", unsupported, "times carry their offset from UTC", nil},
		{"logging_filename", unsupported, "the log goes to standard error; whoever runs Postern keeps it", nil},
		{"logging_max_size", unsupported, "the log goes to standard error; whoever runs Postern keeps it", nil},
		{"logging_max_age", unsupported, "the log goes to standard error; whoever runs Postern keeps it", nil},
		{"logging_max_backups", unsupported, "the log goes to standard error; whoever runs Postern keeps it", nil},
		{"logging_compress", unsupported, "the log goes to standard error; whoever runs Postern keeps it", nil},
		{"signature_key", unsupported, "routes.*.assertion signs a statement about the person, with keys that the application can fetch", nil},
		{"allow_query_semicolons", unsupported, "queries are passed on as they are", nil},
	}
}
