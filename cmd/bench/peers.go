package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The other proxies. A nil target says that one is not installed.

// nginx is a proxy that knows nothing of sessions: what a proxy in C costs.
func (s *stack) nginx(ctx context.Context) (*target, error) {
	program := installed("nginx", "/usr/sbin/nginx")
	if program == "" {
		return nil, nil
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	content := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr error;
events { worker_connections 1024; }
http {
	access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	upstream app { server %[2]s; keepalive 128; }
	server {
		listen %[3]s; keepalive_requests 1000000000;
		location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr; }
	}
}
`, s.dir, s.app, address(port))
	config := filepath.Join(s.dir, "nginx.conf")
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return nil, err
	}
	if err := s.addVersion(ctx, program, "-v"); err != nil {
		return nil, err
	}
	p, err := s.start(exec.CommandContext(ctx, program, "-c", config, "-p", s.dir))
	if err != nil {
		return nil, err
	}
	return &target{address: address(port), path: plainPath, visitors: []visitor{s.alice}, proxy: p}, p.listening(ctx, address(port))
}

// apacheModules are where Debian's packages apache2 and libapache2-mod-auth-openidc have them.
const apacheModules = "/usr/lib/apache2/modules"

// apache is Apache with mod_auth_openidc, its sessions in Redis. It can log nothing of a request.
func (s *stack) apache(ctx context.Context) (*target, error) {
	program := installed("apache2", "/usr/sbin/apache2")
	if _, err := os.Stat(apacheModules + "/mod_auth_openidc.so"); program == "" || err != nil {
		return nil, nil
	}
	at := address(s.takeCallback())
	var modules strings.Builder
	for _, name := range []string{"mpm_event", "authn_core", "authz_core", "authz_user", "headers", "proxy", "proxy_http", "auth_openidc"} {
		fmt.Fprintf(&modules, "LoadModule %s_module %s/mod_%[1]s.so\n", name, apacheModules)
	}
	content := fmt.Sprintf(`%[1]sServerRoot %[2]s
ServerName 127.0.0.1
DefaultRuntimeDir %[2]s
PidFile %[2]s/apache.pid
Mutex pthread
ErrorLog /dev/stderr
LogLevel error
User www-data
Group www-data
Listen %[3]s
ServerLimit 2
StartServers 2
ThreadsPerChild 64
MaxRequestWorkers 128
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 120
OIDCProviderMetadataURL %[4]s/.well-known/openid-configuration
OIDCClientID %[5]s
OIDCClientSecret %[6]s
OIDCRedirectURI http://%[3]s%[7]s
OIDCScope "openid profile email"
OIDCPKCEMethod S256
OIDCCryptoPassphrase %[8]s
OIDCSessionType server-cache
OIDCCacheType redis
OIDCRedisCacheServer %[9]s
OIDCPassClaimsAs headers
<Location />
	AuthType openid-connect
	Require valid-user
	RequestHeader set Authorization "expr=Bearer %%{req:OIDC_access_token}"
	RequestHeader set X-Forwarded-User "expr=%%{req:OIDC_CLAIM_sub}"
	ProxyPass http://%[10]s/
</Location>
`, modules.String(), s.dir, at, s.place.issuer, clientID, clientSecret, callbackPath, rand.Text(), s.place.redis, s.app)
	config := filepath.Join(s.dir, "apache.conf")
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return nil, err
	}
	if err := s.addVersion(ctx, program, "-v"); err != nil {
		return nil, err
	}
	return s.signedInPeer(ctx, exec.CommandContext(ctx, program, "-D", "FOREGROUND", "-f", config), at)
}

// oauth2Proxy is oauth2-proxy with sessions in Redis, where a binary is on PATH. It logs nothing of a request.
func (s *stack) oauth2Proxy(ctx context.Context) (*target, error) {
	program := installed("oauth2-proxy")
	if program == "" {
		return nil, nil
	}
	if err := s.addVersion(ctx, program, "--version"); err != nil {
		return nil, err
	}
	at := address(s.takeCallback())
	return s.signedInPeer(ctx, exec.CommandContext(ctx, program,
		"--http-address="+at, "--upstream=http://"+s.app+"/", "--redirect-url=http://"+at+callbackPath,
		"--provider=oidc", "--oidc-issuer-url="+s.place.issuer, "--client-id="+clientID, "--client-secret="+clientSecret,
		"--code-challenge-method=S256", "--scope=openid profile email", "--email-domain=*", "--skip-provider-button",
		"--session-store-type=redis", "--redis-connection-url=redis://"+s.place.redis+"/0", "--cookie-secret="+rand.Text()[:16], "--cookie-secure=false",
		"--pass-access-token", "--request-logging=false", "--auth-logging=false", "--standard-logging=false",
	), at)
}

// signedInPeer starts a proxy that knows sessions, and signs in.
func (s *stack) signedInPeer(ctx context.Context, cmd *exec.Cmd, at string) (*target, error) {
	p, err := s.start(cmd)
	if err != nil {
		return nil, err
	}
	if err := p.listening(ctx, at); err != nil {
		return nil, err
	}
	v, err := signIn(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("sign in: %w: %s", err, p.log)
	}
	return &target{address: at, path: signedPath, visitors: []visitor{v}, proxy: p}, nil
}

// installed is the path of a program that is on PATH under its name, or at one of paths; "" if it is nowhere.
func installed(name string, paths ...string) string {
	for _, candidate := range append([]string{name}, paths...) {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	return ""
}
