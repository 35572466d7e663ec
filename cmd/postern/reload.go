package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"postern/config"
	"postern/proxy"
)

// reloader takes the configuration anew when it has changed: whole, or not at all. It is used by one goroutine.
type reloader struct {
	o     *options
	env   proxy.Env
	level *slog.LevelVar // of env.Log
	all   *generations
	cfg   *config.Config // of the current generation
	watcher
	taken contents // of the files of the current generation
}

// reload takes the configuration as its files are now. A bad one changes nothing, and is told of in log, metric and readiness until there is a good one.
//
// Where the file is bad, the files that the configuration in use names are taken all the same when they have changed: a certificate does not expire
// because somebody has left a mistake behind.
func (r *reloader) reload() {
	notifyReloading()
	defer notify("READY=1")
	seen := look(r.o.config) // before it is read: what is written meanwhile is a change at the next look
	cfg, err := load(r.o)
	if err == nil {
		fixed := keepFixed(r.cfg, cfg)
		maps.Copy(seen, look(cfg.Files()...)) // with the files of what stays until a restart
		err = r.take(cfg, fixed, seen)
	}
	r.env.Metrics.ConfigReloaded(err == nil)
	if err == nil {
		r.current().proxy.ConfigProblem("")
		r.watch(seen)
		return
	}
	r.refuse(err)
	files := look(r.cfg.Files()...)
	if !r.sameNamed(files) {
		_ = r.take(r.cfg, nil, files) // what is wrong there was told just now
	}
	maps.Copy(files, seen)
	r.watch(files)
}

func (r *reloader) current() *generation { return r.all.current.Load() }

// take makes cfg the configuration in use; fixed needs a restart.
func (r *reloader) take(cfg *config.Config, fixed []string, files contents) error {
	begin, before := time.Now(), r.current()
	if redis := cfg.Session.Store.Redis; redis != nil && redis.CAFile != "" && r.taken[redis.CAFile] != files[redis.CAFile] {
		fixed = append(fixed, "session.store.redis.ca_file") // the store has read it
	}
	if len(fixed) > 0 {
		r.env.Log.Warn("needs a restart: " + strings.Join(fixed, ", "))
	}
	changes := config.Changes(r.cfg, cfg)
	if !r.sameNamed(files) {
		changes = append(changes, "files that it names")
	}
	if len(changes) == 0 {
		r.taken = files
		r.env.Log.Info("configuration read again: nothing has changed")
		return nil
	}
	problems := cfg.CheckFiles()
	if errs := problems.Errors(); len(errs) > 0 {
		return errs
	}
	next, err := newGeneration(cfg, r.env, before)
	if err != nil {
		return err
	}
	warn(r.env.Log, cfg, problems)
	setLevel(r.level, cfg.Server.Log)
	r.all.replace(next)
	r.cfg, r.taken = cfg, files
	r.env.Log.Info("configuration taken", "changed", changes, "took", time.Since(begin).Round(time.Millisecond).String())
	return nil
}

// sameNamed tells whether files other than the configuration itself hold what they held.
func (r *reloader) sameNamed(files contents) bool {
	for name, sum := range files {
		if was, ok := r.taken[name]; ok && was != sum && name != r.o.config {
			return false
		}
	}
	return true
}

// refuse says why the configuration is not taken.
func (r *reloader) refuse(err error) {
	var lines []string
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, p := range problems.Errors() {
			lines = append(lines, p.String())
		}
	} else {
		lines = strings.Split(err.Error(), "\n")
	}
	r.env.Log.Error("configuration not taken: the old one stays in use", "problems", lines)
	r.current().proxy.ConfigProblem(fmt.Sprintf("changed, but not taken: %s, see the log", count(len(lines), "problem")))
}

// keepFixed gives next what only a start can change, as running has it, and names what is different there.
func keepFixed(running, next *config.Config) (fixed []string) {
	was, now := running.Server, &next.Server
	for path, is := range map[string]struct{ was, now *string }{
		"server.listen":          {&was.Listen, &now.Listen},
		"server.admin_listen":    {&was.AdminListen, &now.AdminListen},
		"server.redirect_listen": {&was.RedirectListen, &now.RedirectListen},
		"server.log.format":      {&was.Log.Format, &now.Log.Format},
	} {
		if *is.was != *is.now {
			fixed = append(fixed, path)
			*is.now = *is.was
		}
	}
	if (was.TLS == nil) != (now.TLS == nil) { // other files are fine
		fixed = append(fixed, "server.tls")
		now.TLS = was.TLS
	}
	if (was.AdminTLS() == nil) != (now.AdminTLS() == nil) {
		fixed = append(fixed, "server.admin")
		now.Admin = was.Admin
	}
	a, b := *running, *next
	a.Routes, b.Routes = nil, nil // no route needs a restart, and there can be thousands
	changes := config.Changes(&a, &b)
	if slices.Contains(changes, "server.audit") {
		fixed = append(fixed, "server.audit")
		now.Audit = was.Audit
	}
	if slices.Contains(changes, "server.tracing") {
		fixed = append(fixed, "server.tracing")
		now.Tracing = was.Tracing
	}
	if slices.ContainsFunc(changes, func(path string) bool { return strings.HasPrefix(path, "session.store.") }) {
		fixed = append(fixed, "session.store")
		next.Session.Store = running.Session.Store
		if len(next.Session.Keys) == 0 && len(running.Session.Keys) > 0 { // the store that stays needs some
			fixed = append(fixed, "session.keys")
			next.Session.Keys = running.Session.Keys
		}
	}
	slices.Sort(fixed)
	return fixed
}
