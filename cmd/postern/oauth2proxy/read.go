package oauth2proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/goccy/go-yaml"
)

// EnvPrefix begins the variables that oauth2-proxy reads.
const EnvPrefix = "OAUTH2_PROXY_"

// option is one that the input gives.
type option struct {
	key   string // as in TOML
	name  string // as the input calls it
	value any
}

// options are all that the input gives. Those of providers are by provider.
type options struct {
	values    map[string]option
	providers []map[string]option
	alpha     bool // there is a structured configuration; headers are then those that it names
}

// read adds an input.
func (in *options) read(i Input) error {
	if in.values == nil {
		in.values = map[string]option{}
	}
	switch i.Format {
	case Alpha:
		return in.readAlpha(i.Data)
	case Env:
		return in.readEnv(i.Data)
	}
	var values map[string]any
	if err := toml.Unmarshal(i.Data, &values); err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) { // its own text would quote the line, which may hold a secret
			return fmt.Errorf("line %d is not TOML", parse.Position.Line)
		}
		return errors.New("is not TOML")
	}
	for name, value := range values {
		in.add(strings.ToLower(strings.ReplaceAll(name, "-", "_")), name, literal(value))
	}
	return nil
}

// readEnv reads lines such as OAUTH2_PROXY_CLIENT_ID=wiki. Other variables are not oauth2-proxy's.
func (in *options) readEnv(data []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "export "), "=")
		name = strings.TrimSpace(name)
		key, ours := strings.CutPrefix(name, EnvPrefix)
		if !ok || !ours {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		in.add(strings.ToLower(key), name, literal(value))
	}
	return lines.Err()
}

// add adds an option by its key in TOML.
func (in *options) add(key, name string, value any) {
	o := option{key: key, name: name, value: value}
	if !isProviderKey(key) {
		in.values[key] = o
		return
	}
	if len(in.providers) == 0 {
		in.providers = append(in.providers, map[string]option{})
	}
	in.providers[0][key] = o
}

// literal keeps Postern from taking a text for a variable: TOML and environment have none.
func literal(value any) any {
	switch v := value.(type) {
	case string:
		return strings.ReplaceAll(v, "${", "$${")
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = literal(v[i])
		}
		return all
	}
	return value
}

// sorted are the options outside providers by name.
func (in *options) sorted() []option {
	return slices.SortedFunc(maps.Values(in.values), func(a, b option) int { return strings.Compare(a.name, b.name) })
}

// text is an option's value as a text; "" where it is not given.
func (o option) text() string {
	switch v := o.value.(type) {
	case nil:
		return ""
	case string:
		return strings.TrimSpace(v)
	case bool, int64, uint64, float64:
		return fmt.Sprint(v)
	}
	if l := o.list(); len(l) == 1 {
		return l[0]
	}
	return ""
}

// list is an option's value as texts. In the environment they stand with commas between.
func (o option) list() []string {
	var all []string
	switch v := o.value.(type) {
	case string:
		all = strings.Split(v, ",")
	case []any:
		for _, e := range v {
			all = append(all, option{value: e}.text())
		}
	}
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// is tells whether the option says yes; def where it is not given or is neither.
func (o option) is(def bool) bool {
	if yes, err := strconv.ParseBool(o.text()); err == nil {
		return yes
	}
	return def
}

var (
	oneVariable  = regexp.MustCompile(`^\$\{\w+\}$`)
	bareVariable = regexp.MustCompile(`\$([A-Za-z_]\w*)`)
)

// alphaKeys are the keys of the structured configuration and the options that they stand for.
func alphaKeys() map[string]string {
	return map[string]string{
		"upstreamConfig.proxyRawPath":     "proxy_raw_path",
		"upstreamConfig.upstreams":        "upstreams",
		"injectRequestHeaders":            "inject_request_headers",
		"injectResponseHeaders":           "inject_response_headers",
		"server.BindAddress":              "http_address",
		"server.SecureBindAddress":        "https_address",
		"server.TLS.Key.fromFile":         "tls_key_file",
		"server.TLS.Cert.fromFile":        "tls_cert_file",
		"server.TLS.MinVersion":           "tls_min_version",
		"server.TLS.CipherSuites":         "tls_cipher_suites",
		"metricsServer.BindAddress":       "metrics_address",
		"metricsServer.SecureBindAddress": "metrics_secure_address",
		"metricsServer.TLS.Key.fromFile":  "metrics_tls_key_file",
		"metricsServer.TLS.Cert.fromFile": "metrics_tls_cert_file",
	}
}

// alphaProviderKeys are the same below an entry of providers.
func alphaProviderKeys() map[string]string {
	return map[string]string{
		"id": "id", "provider": "provider", "name": "provider_display_name",
		"clientID": "client_id", "clientSecret": "client_secret", "clientSecretFile": "client_secret_file",
		"caFiles": "provider_ca_files", "useSystemTrustStore": "use_system_trust_store",
		"loginURL": "login_url", "loginURLParameters": "login_url_parameters", "redeemURL": "redeem_url", "profileURL": "profile_url",
		"skipClaimsFromProfileURL": "skip_claims_from_profile_url", "resource": "resource", "validateURL": "validate_url",
		"scope": "scope", "allowedGroups": "allowed_groups", "code_challenge_method": "code_challenge_method", "backendLogoutURL": "backend_logout_url",
		"oidcConfig.issuerURL": "oidc_issuer_url", "oidcConfig.insecureAllowUnverifiedEmail": "insecure_oidc_allow_unverified_email",
		"oidcConfig.insecureSkipIssuerVerification": "insecure_oidc_skip_issuer_verification", "oidcConfig.insecureSkipNonce": "insecure_oidc_skip_nonce",
		"oidcConfig.skipDiscovery": "skip_oidc_discovery", "oidcConfig.jwksURL": "oidc_jwks_url", "oidcConfig.publicKeyFiles": "oidc_public_key_files",
		"oidcConfig.emailClaim": "oidc_email_claim", "oidcConfig.groupsClaim": "oidc_groups_claim", "oidcConfig.userIDClaim": "user_id_claim",
		"oidcConfig.audienceClaims": "oidc_audience_claims", "oidcConfig.extraAudiences": "oidc_extra_audiences",
		"keycloakConfig.groups": "keycloak_groups", "keycloakConfig.roles": "allowed_roles",
		"azureConfig.tenant": "azure_tenant", "azureConfig.graphGroupField": "azure_graph_group_field",
		"microsoftEntraIDConfig.allowedTenants": "entra_id_allowed_tenants", "microsoftEntraIDConfig.federatedTokenAuth": "entra_id_federated_token_auth",
		"bitbucketConfig.team": "bitbucket_team", "bitbucketConfig.repository": "bitbucket_repository",
		"githubConfig.org": "github_org", "githubConfig.team": "github_team", "githubConfig.repo": "github_repo",
		"githubConfig.token": "github_token", "githubConfig.users": "github_users",
		"gitlabConfig.group": "gitlab_groups", "gitlabConfig.projects": "gitlab_projects",
		"googleConfig.group": "google_groups", "googleConfig.adminEmail": "google_admin_email",
		"googleConfig.serviceAccountJson":               "google_service_account_json",
		"googleConfig.useApplicationDefaultCredentials": "google_use_application_default_credentials",
		"googleConfig.targetPrincipal":                  "google_target_principal",
		"loginGovConfig.jwtKey":                         "jwt_key", "loginGovConfig.jwtKeyFile": "jwt_key_file", "loginGovConfig.pubjwkURL": "pubjwk_url",
	}
}

// readAlpha reads the structured configuration. Its variables are Postern's too.
func (in *options) readAlpha(data []byte) error {
	var doc map[string]any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil { // its own text would quote the file
			return fmt.Errorf("line %d is not the YAML of oauth2-proxy", at.GetToken().Position.Line)
		}
		return errors.New("is not the YAML of oauth2-proxy")
	}
	in.alpha = true
	list, _ := doc["providers"].([]any)
	delete(doc, "providers")
	flatten("", doc, alphaKeys(), func(key, name string, value any) {
		in.values[key] = option{key: key, name: name, value: value}
	})
	for i, entry := range list {
		m, _ := entry.(map[string]any)
		p := map[string]option{}
		flatten("", m, alphaProviderKeys(), func(key, name string, value any) {
			p[key] = option{key: key, name: fmt.Sprintf("providers[%d].%s", i, name), value: value}
		})
		in.providers = append(in.providers, p)
	}
	return nil
}

// flatten finds each option in a tree. One that keys does not have goes by its own name.
func flatten(path string, value any, keys map[string]string, found func(key, name string, value any)) {
	for alpha, key := range keys {
		if strings.EqualFold(alpha, path) {
			found(key, path, withVariables(value))
			return
		}
	}
	m, ok := value.(map[string]any)
	if !ok {
		found(path, path, value)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		flatten(strings.TrimPrefix(path+"."+name, "."), m[name], keys, found)
	}
}

// withVariables writes variables as Postern does: oauth2-proxy replaces $NAME as well as ${NAME}.
func withVariables(value any) any {
	switch v := value.(type) {
	case string:
		return bareVariable.ReplaceAllString(v, "$${$1}")
	case []any:
		for i := range v {
			v[i] = withVariables(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withVariables(v[k])
		}
	}
	return value
}
