// Command bench measures what Postern costs: CPU seconds per 100,000 requests and throughput, beside the application asked directly
// and a bare, tuned httputil.ReverseProxy, in alternating rounds on loopback.
//
// Everything it measures is a process of its own: the application, the bare proxy, a provider and the load (all of them this
// program again), redis-server, and the built postern with configurations that differ only as the table says. It signs in
// for real and checks every answer: a wrong one fails the run. Figures never do: they are for people, who should trust the
// ratios and not the absolute values of a busy machine.
//
// Start in rounds.go; stack.go starts the processes, load.go is the load.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options say how much is measured.
type options struct {
	rounds      int
	duration    time.Duration // of one measurement
	connections int
	quick       bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parts are the processes that bench starts of itself.
var parts = map[string]func(context.Context, []string) error{
	"upstream": serveUpstream,
	"bare":     serveBare,
	"provider": serveProvider,
	"load":     sendLoad,
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		if part, ok := parts[args[0]]; ok {
			return part(ctx, args[1:])
		}
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 5, "rounds, each in another order")
	flags.DurationVar(&o.duration, "duration", 4*time.Second, "how long each target is measured in a round")
	flags.IntVar(&o.connections, "connections", 64, "keep-alive connections, each with one request at a time")
	flags.BoolVar(&o.quick, "quick", false, "two short rounds of the chief targets, to see that all of it works")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if o.quick {
		o.rounds, o.duration = 2, time.Second
	}
	return bench(ctx, os.Stdout, o)
}
