package doctor

import (
	"context"
	"fmt"
	"slices"

	"postern/config"
	"postern/session/seal"
)

// Problems are the findings about the file itself: all that `postern check` finds in it. It needs no Options, as there are none where the file is broken.
func Problems(file string, problems config.Problems) []Finding {
	if len(problems) == 0 {
		return []Finding{{"config", file, Pass, "good", ""}}
	}
	return findings("config", file, problems)
}

// Files are the findings about the files that the configuration names.
func Files(problems config.Problems) []Finding {
	if len(problems) == 0 {
		return []Finding{{"files", "", Pass, "every file that is named can be read, and those of secrets not by everyone", ""}}
	}
	return findings("files", "", problems)
}

func findings(check, subject string, problems config.Problems) (found []Finding) {
	for _, p := range problems {
		f := Finding{check, subject, Fail, p.What, p.Mend}
		if p.Path != "" {
			f.Found = p.Path + ": " + p.What
		}
		if p.Line > 0 {
			f.Found = fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, f.Found)
		}
		if p.Warning {
			f.Result = Warn
		}
		if p.Mend == "" {
			f.Mend = "Change what is said at " + p.Path
		}
		found = append(found, f)
	}
	return found
}

// keys counts them. What is wrong with one of them Files has said: then there is nothing to add.
func (o Options) keys(context.Context) []Finding {
	var l list
	switch n := len(o.Config.Session.Keys); {
	case slices.ContainsFunc(o.Config.Session.Keys, unusable):
	case n > 0:
		l.pass("keys.session", fmt.Sprintf("%d; the first seals, all open", n))
	case o.Config.Session.Store.Redis != nil:
		l.fail("keys.session", "there is none, so that no session outlives a start", "session.keys: put one there that `postern keygen` makes")
	default:
		l.warn("keys.session", "none: one is made at each start, and sessions are in memory, so a restart signs everybody out",
			"session.keys and session.store.redis: write both where that must not be")
	}
	if n := len(o.Config.Server.AssertionKeys); n > 0 {
		l.pass("keys.assertion", fmt.Sprintf("%d; the first signs, all are published", n))
	}
	return l.all
}

// unusable tells whether key cannot be read, or is none.
func unusable(key config.Secret) bool {
	s, err := key.Value()
	if err != nil {
		return true
	}
	_, err = seal.ParseKey(s)
	return err != nil
}
