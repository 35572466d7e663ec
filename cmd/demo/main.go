// Command demo shows Postern without anything installed: one process with a throw-away identity provider, a small "legacy" application,
// and Postern before it, all on loopback. Everything is forgotten when it ends.
//
//	go run ./cmd/demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	listen    string // Postern
	provider  string
	app       string
	tokenLife time.Duration
	quiet     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:4180", "loopback `address` of Postern; another port if it is taken")
	flags.StringVar(&o.provider, "provider-listen", "127.0.0.1:9000", "loopback `address` of the identity provider; another port if it is taken")
	flags.StringVar(&o.app, "app-listen", "127.0.0.1:3000", "loopback `address` of the application; another port if it is taken")
	flags.DurationVar(&o.tokenLife, "token-life", time.Minute, "life of access tokens, in whole seconds")
	flags.BoolVar(&o.quiet, "quiet", false, "log errors only, not each request")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.tokenLife < time.Second || o.tokenLife%time.Second != 0 {
		return o, fmt.Errorf("--token-life %s: give whole seconds, at least one", o.tokenLife)
	}
	return o, nil
}

// run serves until ctx ends. What a person should read goes to out, logs to logs.
func run(ctx context.Context, o options, out, logs io.Writer) error {
	level := slog.LevelInfo
	if o.quiet {
		level = slog.LevelError
	}
	d, err := start(ctx, o, out, slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: level})))
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // Ctrl-C before everything was up
	}
	if err != nil {
		return err
	}
	welcome(out, d, o)
	select {
	case err = <-d.failed:
	case <-ctx.Done():
		fmt.Fprintln(out, "\nStopping.")
	}
	return errors.Join(err, d.stop())
}

func welcome(out io.Writer, d *demo, o options) {
	fmt.Fprintf(out, "\n  Postern      %s   ← open this\n", d.url)
	for i, p := range people() {
		label := ""
		if i == 0 {
			label = "People"
		}
		fmt.Fprintf(out, "  %-12s %s (%s)\n", label, p.Claims["name"], strings.Join(p.Claims["groups"].([]string), ", "))
	}
	fmt.Fprintf(out, "  %-12s %s   has a session of its own\n", "Provider", d.issuer)
	fmt.Fprintf(out, "  %-12s %s   past Postern: nobody is signed in\n\n", "Application", d.appURL)
	fmt.Fprintf(out, "  Access tokens live %s: watch one being replaced at %s/headers\n", o.tokenLife, d.url)
	fmt.Fprintf(out, "  Ctrl-C ends the demo.\n\n")
}

// listen opens address, or another port on the same host when that one is taken, and says so. The people here have no passwords, so
// nothing listens for other machines.
func listen(what, address string, out io.Writer) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("%s: %q is no loopback address such as 127.0.0.1, and nobody here has a password", what, host)
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err == nil {
			fmt.Fprintf(out, "%s is taken, so the %s is at %s.\n", address, what, l.Addr())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return l, nil
}
