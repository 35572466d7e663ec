package proxy

import (
	"fmt"
	"log/slog"

	"postern/config"
	"postern/session/seal"
)

// keyring is session.keys, as the files have them now.
type keyring struct {
	*seal.Ring
	files *keyFiles
}

// newKeyring reads session.keys. Without any, sessions end with the process, which is right for the memory store alone.
func newKeyring(c config.Session, log *slog.Logger) (*keyring, error) {
	k := &keyring{}
	k.files = &keyFiles{at: "session.keys", what: "session keys", secrets: c.Keys, log: log, take: k.take}
	return k, k.files.begin(seal.NewKey)
}

// take makes texts the ring.
func (k *keyring) take(texts []string) (err error) {
	keys := make([][]byte, len(texts))
	for i, text := range texts {
		if keys[i], err = seal.ParseKey(text); err != nil {
			return fmt.Errorf("session.keys[%d]: %w", i, err)
		}
	}
	if k.Ring != nil {
		return k.Replace(keys...)
	}
	if k.Ring, err = seal.NewRing(keys...); err != nil {
		return fmt.Errorf("session.keys: %w", err)
	}
	return nil
}
