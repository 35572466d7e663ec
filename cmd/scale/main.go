// Command scale says what a large deployment of Postern needs: memory, commands and bytes of Redis, notices, and calls of the provider, for
// so many sessions and requests on so many replicas.
//
// It simulates one replica request by request (replica.go), with the product's own times, and the provider refresh by refresh (provider.go); what
// other replicas do is what this one does. What one command costs was measured, see costs. The same seed prints the same figures. Its test compares
// it with the real session package.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"postern/config"
)

// A deployment is what is simulated.
type deployment struct {
	Sessions int           // that are stored
	Active   int           // of them, those whose people are at work
	Rate     float64       // requests a second, of all of them together
	Page     int           // requests that come within a second
	Replicas int           // of Postern
	Masters  int           // of Redis
	Life     time.Duration // of an access token
	Cache    int64         // session.cache.max_size
	Seed     uint64

	session config.Session // the defaults, or what was set over them
}

// costs were measured on 2026-11-22 with Redis 7.0.15 on a shared machine with two Xeon cores of 2.6 GHz.
var costs = struct {
	get, script, publish, deliver, notice time.Duration // of CPU; notice is the replica's, the others are Redis's
	getBytes, scriptBytes, noticeBytes    float64       // that Redis sends or receives
	stored, cached                        float64       // bytes of one session in Redis, with its index, and in a replica's cache
}{
	get: 10 * time.Microsecond, script: 37 * time.Microsecond, publish: 10 * time.Microsecond, deliver: 250 * time.Nanosecond, notice: 4500 * time.Nanosecond,
	getBytes: 1410, scriptBytes: 140, noticeBytes: 55,
	stored: 2060, cached: 4430,
}

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, args []string) error {
	d, err := newDeployment()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.IntVar(&d.Sessions, "sessions", d.Sessions, "sessions in Redis")
	flags.IntVar(&d.Active, "active", d.Active, "sessions whose people are at work")
	flags.Float64Var(&d.Rate, "rate", d.Rate, "requests a second")
	flags.IntVar(&d.Page, "page", d.Page, "requests that a page needs within a second")
	flags.IntVar(&d.Replicas, "replicas", d.Replicas, "processes of Postern")
	flags.IntVar(&d.Masters, "masters", d.Masters, "masters of the Redis Cluster")
	flags.DurationVar(&d.Life, "token-life", d.Life, "life of an access token")
	flags.Int64Var(&d.Cache, "cache", d.Cache, "session.cache.max_size in bytes")
	flags.DurationVar(&d.session.Cache.MaxStale, "max-stale", d.session.Cache.MaxStale, "session.cache.max_stale")
	flags.Uint64Var(&d.Seed, "seed", d.Seed, "of the random numbers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || d.Replicas < 1 || d.Masters < 1 || d.Page < 1 || d.Active < d.Replicas || d.Rate <= 0 || d.Life <= 0 {
		return fmt.Errorf("an argument is unknown, or too small")
	}
	return d.print(out)
}

// newDeployment is internet scale with the defaults of the configuration.
func newDeployment() (deployment, error) {
	cfg, err := config.Parse("scale", []byte("providers: {p: {issuer: https://idp.example, client_id: c, client_secret: s}}\nroutes: [{upstream: http://app.example}]\n"), config.LoadOptions{})
	if err != nil {
		return deployment{}, err
	}
	return deployment{
		Sessions: 100_000_000, Active: 10_000_000, Rate: 1e6, Page: 10, Replicas: 250, Masters: 24,
		Life: time.Hour, Cache: 512 << 20, Seed: 1, session: cfg.Session,
	}, nil
}

func (d deployment) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d sessions, %d of them at work, %.0f requests/s in pages of %d, %d replicas, %d masters, tokens of %v, max_stale %v, cache %d MiB\n",
		d.Sessions, d.Active, d.Rate, d.Page, d.Replicas, d.Masters, d.Life, d.session.Cache.MaxStale, d.Cache>>20)
	fmt.Fprintf(w, "memory of Redis: %.0f GB in all, %.1f GB a master\n", float64(d.Sessions)*costs.stored/1e9, float64(d.Sessions)*costs.stored/1e9/float64(d.Masters))

	fmt.Fprintln(w, "\nbalancing\trequests/s a replica\thits\tGET/request\tscripts/request\tcached sessions\tcache MiB\tRedis commands/s a master\tMB/s a master\tCPU of a master")
	for _, sticky := range []bool{true, false} {
		c := d.replica(sticky, simulated)
		perRequest := float64(c.requests)
		gets, scripts := float64(c.gets)/perRequest, float64(c.scripts)/perRequest
		share := d.Rate / float64(d.Masters)
		cpu := share*(gets*costs.get.Seconds()+scripts*costs.script.Seconds()) + d.noticeCPU(c.refreshesPerSecond(d))
		fmt.Fprintf(w, "%s\t%.0f\t%.1f %%\t%.3f\t%.3f\t%d\t%.0f\t%.0f\t%.0f\t%.0f %%\n", map[bool]string{true: "sticky", false: "any replica"}[sticky],
			d.Rate/float64(d.Replicas), 100*float64(c.hits)/perRequest, gets, scripts, c.cached, float64(c.cached)*costs.cached/(1<<20),
			share*(gets+scripts), share*(gets*costs.getBytes+scripts*costs.scriptBytes)/1e6, 100*cpu)
	}

	fmt.Fprintln(w, "\nnotices (each change reaches each replica)\treplicas\tnotices/s\tCPU of a replica\tMB/s a replica\tMB/s of all\tCPU of a master")
	for _, life := range []time.Duration{d.Life, 5 * time.Minute} {
		for _, n := range []int{d.Replicas / 10, d.Replicas, 4 * d.Replicas} {
			at := d
			at.Replicas, at.Life = max(n, 1), life
			notices := 2 * at.refreshRate()
			fmt.Fprintf(w, "tokens of %v\t%d\t%.0f\t%.0f %%\t%.2f\t%.0f\t%.0f %%\n", life, at.Replicas, notices, 100*notices*costs.notice.Seconds(),
				notices*costs.noticeBytes/1e6, notices*costs.noticeBytes*float64(at.Replicas)/1e6, 100*at.noticeCPU(at.refreshRate()))
		}
	}

	fmt.Fprintln(w, "\nfailover of one master (all copies are read again when next used)\tGET/s before\tat most\tuntil half of that\tlooks for lost writes/s")
	for _, sticky := range []bool{true, false} {
		before, peak, half := d.failover(sticky)
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%v\t%.0f\n", map[bool]string{true: "sticky", false: "any replica"}[sticky], before, peak, half, d.looks())
	}

	fmt.Fprintf(w, "\nrefreshes at the provider, %.0f/s on average; after the outage it answers %d times as many\tpeak/s\tpeak/s of the last hour\ttimed out\tsessions lost\tlongest wait\n", d.refreshRate(), capacity)
	for _, c := range d.provider() {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%v\n", c.name, c.peak, c.later, c.timedOut, c.ended, c.longest.Round(time.Second))
	}
	return w.Flush()
}
