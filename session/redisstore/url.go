package redisstore

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// target is what a URL says.
type target struct {
	network, address string
	user, password   string
	db               int
	tls              *tls.Config // nil: plaintext
}

// parseURL is stricter than go-redis, whose URLs can set any option. Its errors never quote the URL, which may hold a password.
func parseURL(s string) (target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return target{}, errors.New("redis url: not a url")
	}
	if u.Fragment != "" || u.Opaque != "" {
		return target{}, errors.New("redis url: want redis://user@host:6379/0")
	}
	t := target{user: u.User.Username()}
	t.password, _ = u.User.Password()

	query := u.Query()
	db := strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "redis", "rediss":
		if u.Hostname() == "" {
			return target{}, errors.New("redis url: no host")
		}
		t.network, t.address = "tcp", u.Host
		if u.Port() == "" {
			t.address = net.JoinHostPort(u.Hostname(), "6379")
		}
		if u.Scheme == "rediss" {
			t.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	case "unix":
		if u.Host != "" || u.Path == "" {
			return target{}, errors.New("redis url: want unix:///path/to/socket")
		}
		t.network, t.address = "unix", u.Path
		db = query.Get("db")
		query.Del("db")
	default:
		return target{}, fmt.Errorf("redis url: scheme %q is not redis, rediss or unix", u.Scheme)
	}
	if len(query) > 0 {
		return target{}, errors.New("redis url: options after ? are not supported")
	}
	if db != "" {
		if t.db, err = strconv.Atoi(db); err != nil || t.db < 0 {
			return target{}, errors.New("redis url: database is not a number")
		}
	}
	return t, nil
}
