package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"postern/config"
	"postern/session/seal"
)

// keyCheck is how often the files of session.keys are looked at.
const keyCheck = 2 * time.Second

// keyring is session.keys, as the files have them now.
type keyring struct {
	*seal.Ring
	secrets []config.Secret
	log     *slog.Logger
	every   time.Duration

	// Used by run alone.
	texts, next []string // what the ring has; what the last look showed that it has not
	problem     string   // that was logged
}

// newKeyring reads session.keys. Without any, sessions end with the process, which is right for the memory store alone.
func newKeyring(c config.Session, log *slog.Logger) (*keyring, error) {
	k := &keyring{secrets: c.Keys, log: log, every: keyCheck}
	if len(c.Keys) == 0 {
		k.texts = []string{seal.NewKey()}
	} else {
		var err error
		if k.texts, err = k.read(); err != nil {
			return nil, err
		}
	}
	keys, err := parseKeys(k.texts)
	if err != nil {
		return nil, err
	}
	if k.Ring, err = seal.NewRing(keys...); err != nil {
		return nil, fmt.Errorf("session.keys: %w", err)
	}
	return k, nil
}

func (k *keyring) read() ([]string, error) {
	texts := make([]string, len(k.secrets))
	for i, secret := range k.secrets {
		var err error
		if texts[i], err = secret.Value(); err != nil {
			return nil, fmt.Errorf("session.keys[%d]: %w", i, err)
		}
	}
	return texts, nil
}

func parseKeys(texts []string) ([][]byte, error) {
	keys := make([][]byte, len(texts))
	for i, text := range texts {
		var err error
		if keys[i], err = seal.ParseKey(text); err != nil {
			return nil, fmt.Errorf("session.keys[%d]: %w", i, err)
		}
	}
	return keys, nil
}

// run follows the files until ctx ends.
func (k *keyring) run(ctx context.Context) {
	if !slices.ContainsFunc(k.secrets, func(s config.Secret) bool { return s.File() != "" }) {
		return
	}
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look takes what the files hold now, once two looks have shown the same: somebody who changes several files, or who writes into one, is
// not always at the end of it. What is no ring of keys leaves the old one.
func (k *keyring) look(ctx context.Context) {
	texts, err := k.read()
	if err == nil && slices.Equal(texts, k.texts) {
		k.next, k.problem = nil, ""
		return
	}
	if err == nil && !slices.Equal(texts, k.next) {
		k.next = texts
		return
	}
	var keys [][]byte
	if err == nil {
		keys, err = parseKeys(texts)
	}
	if err == nil {
		err = k.Replace(keys...)
	}
	if err != nil {
		if k.problem != err.Error() {
			k.problem = err.Error()
			k.log.ErrorContext(ctx, "session keys not replaced: the files hold no ring of keys; the old ones stay in use", "error", err)
		}
		return
	}
	k.texts, k.next, k.problem = texts, nil, ""
	k.log.InfoContext(ctx, "session keys replaced", "keys", len(keys))
}
