package doctor

import (
	"net/url"

	"postern/config"
)

// maxOrigins bounds how many hosts are asked for.
const maxOrigins = 5

// needsSignIn tells whether somebody may have to sign in to use a route.
func needsSignIn(r config.Route) bool {
	return r.Access.Level != config.Public && r.Access.Level != config.Deny
}

// origins are what browsers see of some routes, each once. Of a host that is a wildcard nothing is known.
func (o Options) origins(of func(config.Route) bool) (all []*url.URL) {
	seen := map[string]bool{}
	for _, r := range o.Config.Routes {
		if !of(r) || len(all) == maxOrigins {
			continue
		}
		if at := o.Config.Server.Origin(r.Host); at != nil && !seen[at.String()] {
			seen[at.String()] = true
			all = append(all, at)
		}
	}
	return all
}
