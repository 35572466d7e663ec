package proxy

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"postern/config"
	"postern/session/seal"
)

// lasting is what belongs to the process and not to its configuration. A [Proxy] shares it with the one that takes its place: else each change of the
// file would forget who guesses passwords and which codes were used, make bounds hold twice, and sign out whoever has a key that was made at start.
//
// Everything else is made anew with each configuration, as another replica would have it: what is remembered of sessions, tokens for applications,
// and which upstream addresses were set aside.
type lasting struct {
	ring         *seal.Ring // session.keys of the newest configuration that runs
	ownKey       string     // in the ring where none is configured, and from then on
	assertionKey string     // the same for server.assertion_keys
	used         usedAttempts
	guesses      guesses
	logoutMisses misses
	keptPlaces   chan struct{} // one for each kept request that is held in memory
	revoking     *revoker
	ready        *readiness
	proxies      atomic.Int32 // that use it
}

func newLasting(env Env) *lasting {
	return &lasting{keptPlaces: make(chan struct{}, maxKeptAtOnce), revoking: newRevoker(env.Log), ready: newReadiness(env.Store, env.Now)}
}

// sessionKeys reads session.keys. Without any, it is what the ring has, at first a key made here: then sessions end with the process, which is right
// for the memory store alone.
func (l *lasting) sessionKeys(secrets []config.Secret) (*seal.Ring, error) {
	if len(secrets) == 0 && l.ring != nil {
		return l.ring, nil
	}
	texts, err := readKeys("session.keys", secrets)
	if err != nil {
		return nil, err
	}
	if len(secrets) == 0 {
		l.ownKey = seal.NewKey()
	}
	if l.ownKey != "" {
		texts = append(texts, l.ownKey)
	}
	keys := make([][]byte, len(texts))
	for i, text := range texts {
		if keys[i], err = seal.ParseKey(text); err != nil {
			return nil, fmt.Errorf("session.keys[%d]: %w", i, err)
		}
	}
	ring, err := seal.NewRing(keys...)
	if err != nil {
		return nil, fmt.Errorf("session.keys: %w", err)
	}
	if l.ring == nil {
		l.ring = ring
	}
	return ring, nil
}

// useKeys makes keys those of the process, for what older configurations still do, too.
func (l *lasting) useKeys(keys *seal.Ring, log *slog.Logger) {
	if l.ring.Adopt(keys) {
		log.Info("session keys replaced", "keys", keys.Keys())
	}
}

// assertionKeys reads server.assertion_keys. Without any, it is one that was made here.
func (l *lasting) assertionKeys(secrets []config.Secret) ([]string, error) {
	if len(secrets) > 0 {
		return readKeys("server.assertion_keys", secrets)
	}
	if l.assertionKey == "" {
		l.assertionKey = NewAssertionKey()
	}
	return []string{l.assertionKey}, nil
}

// readKeys reads a list of keys that the configuration has at some path.
func readKeys(path string, secrets []config.Secret) ([]string, error) {
	texts := make([]string, len(secrets))
	for i, secret := range secrets {
		var err error
		if texts[i], err = secret.Value(); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", path, i, err)
		}
	}
	return texts, nil
}
