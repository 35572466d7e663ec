// Package doctor asks everything that Postern works with whether it is as it should be: files, keys, listen addresses, Redis, providers, what browsers
// reach under the public origin, applications. Each probe ends in findings: what was seen, and what to do where that is not well.
//
// It changes nothing: nothing is written to Redis, nobody is signed in, and a provider is sent one token request, with a code that it must refuse.
// Findings hold no secrets. It makes no difference whether Postern itself is running.
//
// Start with [Examine]. There is one file for each subject.
package doctor

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"time"

	"postern/config"
	"postern/proxy/idp"
	"postern/session/redisstore"
)

// Result is how well something is.
type Result string

// The results. Postern may work with a warning, and does not, or not for long, with a failure.
const (
	Pass Result = "pass"
	Warn Result = "warn"
	Fail Result = "fail"
)

// Finding is what one probe found. Its JSON is documented and stays.
type Finding struct {
	// Check names the probe, such as redis.eviction, and Subject what it looked at where there may be several, such as a provider's name.
	Check   string `json:"check"`
	Subject string `json:"subject"`
	Result  Result `json:"result"`
	Found   string `json:"finding"`
	// Mend says what to do, a line for each way. It is empty with a pass.
	Mend string `json:"mend"`
}

// Options are what is examined, as it comes from the configuration.
type Options struct {
	Config *config.Config
	// Redis is where sessions are; nil where they are in memory, or where it could not be made.
	Redis *redisstore.Store
	// Providers are all of the configuration.
	Providers []Provider
	// Admin reaches the admin listener of a Postern that runs on this machine.
	Admin Admin
	// Limit bounds each probe.
	Limit time.Duration
	// Now tells the time.
	Now func() time.Time
}

// Provider is one identity provider.
type Provider struct {
	config.Provider
	// IDP asks it; nil where Err says why it cannot be.
	IDP *idp.Provider
	Err error
	// Hints are what may mend an error of IDP.
	Hints func(err error) string
}

// Admin is how to reach the admin listener.
type Admin struct {
	Base string // scheme and host
	HTTP *http.Client
}

// probe is one independent part.
type probe func(ctx context.Context) []Finding

// Examine runs all probes, those that do not depend on each other at the same time, and yields their findings in a fixed order.
func Examine(ctx context.Context, o Options) iter.Seq[Finding] {
	return func(yield func(Finding) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var waiting []chan []Finding
		for _, p := range o.probes() {
			done := make(chan []Finding, 1)
			waiting = append(waiting, done)
			go func() { done <- p.findings(ctx) }() // ends within its limits, or with ctx
		}
		for _, done := range waiting {
			for _, f := range <-done {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// findings are the probe's. A mistake of its own that it breaks off at becomes one, so that the others are told all the same.
func (p probe) findings(ctx context.Context) (found []Finding) {
	defer func() {
		if broke := recover(); broke != nil {
			found = []Finding{{
				"doctor", "", Fail, fmt.Sprintf("a probe broke off (%T): what it had found is missing here", broke), // its text may hold what others wrote
				"This is a mistake of Postern's own: report it, with the other findings",
			}}
		}
	}()
	return p(ctx)
}

// probes are in the order in which findings are told.
func (o Options) probes() []probe {
	here := &house{o: o, looked: make(chan struct{})}
	list := []probe{o.keys, here.listeners, o.redis}
	for _, p := range o.Providers {
		list = append(list, func(ctx context.Context) []Finding { return o.provider(ctx, p) })
	}
	list = append(list, here.public)
	for _, a := range o.applications() {
		list = append(list, func(ctx context.Context) []Finding { return o.application(ctx, a) })
	}
	return list
}

// list collects findings of one subject.
type list struct {
	subject string
	all     []Finding
}

func (l *list) pass(check, found string) {
	l.all = append(l.all, Finding{check, l.subject, Pass, found, ""})
}

func (l *list) warn(check, found, mend string) {
	l.all = append(l.all, Finding{check, l.subject, Warn, found, mend})
}

func (l *list) fail(check, found, mend string) {
	l.all = append(l.all, Finding{check, l.subject, Fail, found, mend})
}
