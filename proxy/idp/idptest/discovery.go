package idptest

import (
	"maps"
	"net/http"
	"slices"
)

// discovery is OpenID Connect Discovery 1.0 section 3.
func (s *Server) discovery(w http.ResponseWriter, _ *http.Request) {
	set := s.settings()
	algs := map[string]bool{}
	for _, k := range s.published().Keys {
		algs[k.Algorithm] = true
	}
	scopes := []string{"openid", "profile", "email", "address", "phone", "groups"}
	if set.refresh != RefreshNever {
		scopes = append(scopes, "offline_access")
	}
	doc := map[string]any{
		"issuer":                                         s.URL,
		"authorization_endpoint":                         s.EndpointURL(Authorize),
		"token_endpoint":                                 s.EndpointURL(Token),
		"userinfo_endpoint":                              s.EndpointURL(Userinfo),
		"jwks_uri":                                       s.EndpointURL(JWKS),
		"end_session_endpoint":                           s.EndpointURL(EndSession),
		"revocation_endpoint":                            s.EndpointURL(Revoke),
		"introspection_endpoint":                         s.EndpointURL(Introspect),
		"scopes_supported":                               scopes,
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query", "form_post"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token", exchangeGrant},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          slices.Sorted(maps.Keys(algs)),
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post", "none"},
		"revocation_endpoint_auth_methods_supported":     []string{"client_secret_basic", "client_secret_post", "none"},
		"code_challenge_methods_supported":               []string{"S256"},
		"prompt_values_supported":                        []string{"none", "login"},
		"claims_supported":                               []string{"sub", "name", "preferred_username", "email", "email_verified", "groups"},
		"authorization_response_iss_parameter_supported": set.issParameter,
		"claims_parameter_supported":                     false,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false,
	}
	var mutate func(map[string]any)
	s.edit("", func(x *script) { mutate = x.metadata })
	if mutate != nil {
		mutate(doc)
	}
	writeJSON(w, http.StatusOK, doc)
}
