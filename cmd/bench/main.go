// Command bench measures what Postern costs, and holds it against what it may cost.
//
// It prints two tables. The first has a row for each way to ask: the application directly, a bare, tuned httputil.ReverseProxy (twice, to show the noise),
// Postern in several configurations, and other proxies where they are installed: nginx, Apache with mod_auth_openidc (Debian's libapache2-mod-auth-openidc)
// and an oauth2-proxy on PATH. Rows are measured in alternating rounds; ratios are taken to the bare proxy of the same round, and then their median. CPU time
// is that of the proxy's processes alone. The second table has the targets: those of the rows, and figures that are measured once (figures.go).
//
// Everything that it measures is a process of its own: the application, the bare proxy, a provider and the load (all of them this program again),
// redis-server, and the built postern. It signs in for real, and the application sees that each request came with the right user and an access token. A wrong
// answer fails the run. Figures never do: they are for people, who should trust the ratios and not the absolute values of a busy machine.
//
//   - All Posterns share one Redis and their sessions, so that one real sign-in serves every row. The many sessions of a crowd are written by the code that a
//     callback runs (sessions.go), and each is used once before it counts.
//   - Postern counts its metrics always: that cannot be switched off, so every row has it. The row of metrics has them read each second besides.
//   - At a fixed rate, times run from when a request was due (load.go).
//   - Memory is resident memory. Of several processes that share some, as Apache's do, it counts what they share for each.
//
// Start in rounds.go and rows.go; stack.go starts the processes, load.go is the load.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// options say how much is measured.
type options struct {
	rounds      int
	duration    time.Duration // of one measurement
	connections int
	only        *regexp.Regexp // nil: everything
	quick       bool

	sessions, sockets, routes int   // how many of them are many
	transfer                  int64 // bytes
}

// wants tells whether a row or a figure of that name is asked for.
func (o *options) wants(name string) bool { return o.only == nil || o.only.MatchString(name) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		if part, ok := parts[args[0]]; ok {
			return part(ctx, args[1:])
		}
	}
	o := options{sessions: 100_000, sockets: 10_000, routes: 10_000, transfer: 1 << 30}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 12, "rounds, each in another order")
	flags.DurationVar(&o.duration, "duration", 2*time.Second, "how long each row is measured in a round")
	flags.IntVar(&o.connections, "connections", 64, "keep-alive connections, each with one request at a time")
	flags.IntVar(&o.sessions, "sessions", o.sessions, "how many sessions are many")
	flags.BoolVar(&o.quick, "quick", false, "a short look at all that is ours, to see that it works")
	flags.Func("only", "only rows and figures whose names match this `regexp`; the bare proxy is always there", func(text string) (err error) {
		o.only, err = regexp.Compile(text)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if o.quick {
		o.rounds, o.duration = 2, 250*time.Millisecond
		o.sessions, o.sockets, o.routes, o.transfer = 500, 100, 500, 32<<20
	}
	return bench(ctx, os.Stdout, o)
}
