// Command bench measures what Postern costs, and holds it against the targets of issue "Speed".
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
	flags.IntVar(&o.rounds, "rounds", 5, "rounds, each in another order")
	flags.DurationVar(&o.duration, "duration", 4*time.Second, "how long each row is measured in a round")
	flags.IntVar(&o.connections, "connections", 64, "keep-alive connections, each with one request at a time")
	flags.BoolVar(&o.quick, "quick", false, "a short look at all that is ours, to see that it works")
	flags.Func("only", "rows and figures whose names match this regular expression", func(text string) (err error) {
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
