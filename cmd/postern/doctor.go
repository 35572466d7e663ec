package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/cmd/postern/doctor"
	"postern/config"
	"postern/proxy"
	"postern/proxy/idp"
	"postern/session/redisstore"
)

// maxProbe bounds --timeout.
const maxProbe = time.Minute

// newDoctor examines everything that Postern works with.
func newDoctor(o *options) *cobra.Command {
	var format string
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "doctor", Short: "Ask everything that Postern works with whether it is well, and say what to do where it is not", Args: cobra.NoArgs,
		Long: "doctor prints a line for each probe, with pass, warn or fail, and what mends it: the configuration (all that check finds), files and keys, listen\n" +
			"addresses, Redis, each provider, the public origin as browsers reach it, and the applications. It changes nothing, and it makes no difference\n" +
			"whether Postern runs; while it does not, doctor stands in at server.listen for a moment, to see what the proxy before it sends. A provider\n" +
			"gets one sign-in that may show nothing for each redirect URI, and one token request with a made-up code. Run it where Postern runs, as its user.\n\n" +
			"With --format json it prints one object: file, result (the worst of all) and findings, each with check, subject (empty where there is one only),\n" +
			"result (pass, warn or fail), finding and mend. The exit code is 1 where the result is fail, whatever the format.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			if limit <= 0 || limit > maxProbe {
				return fmt.Errorf("--timeout must be more than 0s and at most %s", maxProbe)
			}
			if format == "json" {
				return diagnoseJSON(cmd.Context(), cmd.OutOrStdout(), o, limit)
			}
			return diagnoseText(cmd.Context(), newPaper(cmd.OutOrStdout()), o, limit)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().DurationVar(&limit, "timeout", 5*time.Second, "how long each probe may take")
	return cmd
}

// diagnosis is what doctor prints as JSON. Its shape is documented and stays.
type diagnosis struct {
	File     string           `json:"file"`
	Result   doctor.Result    `json:"result"`
	Findings []doctor.Finding `json:"findings"`
}

func diagnoseJSON(ctx context.Context, w io.Writer, o *options, limit time.Duration) error {
	d := diagnosis{File: o.config, Result: doctor.Pass, Findings: []doctor.Finding{}}
	err := diagnose(ctx, o, limit, func(f doctor.Finding) {
		d.Findings = append(d.Findings, f)
		if f.Result == doctor.Fail || f.Result == doctor.Warn && d.Result == doctor.Pass {
			d.Result = f.Result
		}
	})
	if err != nil {
		return err
	}
	if err := writeJSON(w, d); err != nil {
		return err
	}
	if d.Result == doctor.Fail {
		return quietError{}
	}
	return nil
}

func diagnoseText(ctx context.Context, p paper, o *options, limit time.Duration) error {
	counts := map[doctor.Result]int{}
	err := diagnose(ctx, o, limit, func(f doctor.Finding) {
		counts[f.Result]++
		p.print(f)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "\n%s: %d passed, %s, %s\n", o.config, counts[doctor.Pass], count(counts[doctor.Warn], "warning"), count(counts[doctor.Fail], "failure"))
	if counts[doctor.Fail] > 0 {
		return quietError{}
	}
	return nil
}

// diagnose tells every finding in order, each as soon as those before it are known. Where the configuration cannot be used there is nobody to ask.
func diagnose(ctx context.Context, o *options, limit time.Duration, tell func(doctor.Finding)) error {
	c, err := inspect(o, true)
	if err != nil {
		return err
	}
	for _, f := range doctor.Problems(o.config, c.problems) {
		tell(f)
	}
	if c.cfg == nil {
		return nil
	}
	for _, f := range doctor.Files(c.files) {
		tell(f)
	}
	d, err := patient(c.cfg, limit)
	if d.Redis != nil {
		defer d.Redis.Close()
	}
	if err != nil {
		tell(doctor.Finding{Check: "redis.reach", Result: doctor.Fail, Found: err.Error(), Mend: "session.store.redis: change what is said there"})
	}
	for f := range doctor.Examine(ctx, d) {
		tell(f)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return nil
}

// patient is what doctor examines, made of the configuration as serve makes it. The error is about Redis alone.
func patient(cfg *config.Config, limit time.Duration) (doctor.Options, error) {
	quiet := slog.New(slog.DiscardHandler)
	d := doctor.Options{Config: cfg, Limit: limit, Now: time.Now}
	for _, c := range cfg.Providers {
		p := doctor.Provider{Provider: c}
		c.Timeout = min(c.Timeout, limit)
		p.IDP, p.Err = proxy.NewProvider(cfg, c, proxy.Env{Log: quiet})
		p.Hints = advisor{c}.lines
		d.Providers = append(d.Providers, p)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if base, err := adminBase(cfg.Server.AdminListen, cfg.Server.AdminTLS(), t); err == nil {
		d.Admin = doctor.Admin{Base: base, HTTP: newAdminHTTP(t)}
	}
	store, err := openStore(cfg, quiet)
	if err != nil {
		return d, err
	}
	d.Redis, _ = store.(*redisstore.Store) // else sessions are in memory
	return d, nil
}

// lines are the hints about an error in a line each.
func (a advisor) lines(err error) string {
	at := finishing
	if _, refused := errors.AsType[*idp.AuthorizationError](err); refused {
		at = authorizing
	}
	var all []string
	for _, h := range a.hints(at, err) {
		all = append(all, h.String())
	}
	return strings.Join(all, "\n")
}

// paper is what findings are written on: coloured for a person at a terminal, plain for everything else.
type paper struct {
	out    io.Writer
	pretty bool
}

func newPaper(out io.Writer) paper {
	f, ok := out.(*os.File)
	return paper{out: out, pretty: ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// print writes a line for the finding, and one for each way to mend it.
func (p paper) print(f doctor.Finding) {
	symbol := string(f.Result)
	if p.pretty {
		symbol = map[doctor.Result]string{doctor.Pass: "\x1b[32m✓\x1b[0m", doctor.Warn: "\x1b[33m!\x1b[0m", doctor.Fail: "\x1b[31m✗\x1b[0m"}[f.Result]
	}
	name := f.Check
	if f.Subject != "" {
		name += " " + printable(f.Subject)
	}
	fmt.Fprintf(p.out, "%s  %s: %s\n", symbol, name, printable(f.Found))
	for line := range strings.Lines(f.Mend) {
		fmt.Fprintf(p.out, "      → %s\n", printable(strings.TrimSpace(line)))
	}
}
