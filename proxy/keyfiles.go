package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"postern/config"
)

// keyCheck is how often the files of keys are looked at.
const keyCheck = 2 * time.Second

// keyFiles are a list of keys in the configuration, followed as their files change.
type keyFiles struct {
	at, what string // in the configuration, and in the log
	secrets  []config.Secret
	log      *slog.Logger
	// take makes what the files hold the keys to use, or leaves the old ones.
	take func(texts []string) error

	// Used by run alone.
	texts, next []string // what is in use; what the last look showed that is not
	problem     string   // that was logged
}

// begin takes the keys as they are now, or one that fresh makes where none is named.
func (f *keyFiles) begin(fresh func() string) (err error) {
	if len(f.secrets) == 0 {
		f.texts = []string{fresh()}
	} else if f.texts, err = f.read(); err != nil {
		return err
	}
	return f.take(f.texts)
}

func (f *keyFiles) read() ([]string, error) {
	texts := make([]string, len(f.secrets))
	for i, secret := range f.secrets {
		var err error
		if texts[i], err = secret.Value(); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", f.at, i, err)
		}
	}
	return texts, nil
}

// run follows the files until ctx ends.
func (f *keyFiles) run(ctx context.Context) {
	if !slices.ContainsFunc(f.secrets, func(s config.Secret) bool { return s.File() != "" }) {
		return
	}
	tick := time.NewTicker(keyCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look takes what the files hold now, once two looks have shown the same: somebody who changes several files, or who writes into one, is
// not always at the end of it. What are no keys leaves the old ones.
func (f *keyFiles) look(ctx context.Context) {
	texts, err := f.read()
	if err == nil && slices.Equal(texts, f.texts) {
		f.next, f.problem = nil, ""
		return
	}
	if err == nil && !slices.Equal(texts, f.next) {
		f.next = texts
		return
	}
	if err == nil {
		err = f.take(texts)
	}
	if err != nil {
		if f.problem != err.Error() {
			f.problem = err.Error()
			f.log.ErrorContext(ctx, f.what+" not replaced: the files hold no ring of keys; the old ones stay in use", "error", err)
		}
		return
	}
	f.texts, f.next, f.problem = texts, nil, ""
	f.log.InfoContext(ctx, f.what+" replaced", "keys", len(texts))
}
