package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"postern/config"
	"postern/proxy"
	"postern/session/seal"
)

// load reads the configuration and applies the flags.
func load(o *options) (*config.Config, error) {
	if o.config == "" {
		return nil, errors.New("no configuration: use --config FILE or set POSTERN_CONFIG")
	}
	return config.Load(o.config, config.LoadOptions{Listen: o.listen, AdminListen: o.adminListen, LogLevel: o.logLevel})
}

func newCheck(o *options) *cobra.Command {
	var print bool
	var format string
	cmd := &cobra.Command{
		Use: "check", Short: "Check the configuration and print every problem; change nothing, ask nobody", Args: cobra.NoArgs,
		Long: "check prints every problem of the configuration file and of the files that it names, and opens no connection.\n\n" +
			"With --print it writes the configuration as it works, presets and defaults filled in, to standard output, and problems to standard\n" +
			"error. Secrets are shown as [secret], what environment variables hold as ${NAME}.\n\n" +
			"With --format json it prints one object: file, good (nothing stops Postern) and problems, each with severity (error or warning), file, line and\n" +
			"column (0 where no place is meant), path, problem, mend, and excerpt: that line, without secrets, and a mark below the column. The exit code\n" +
			"is 1 where good is false, whatever the format.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			if format == "json" {
				if print {
					return errors.New("--print and --format json exclude each other")
				}
				return checkJSON(cmd.OutOrStdout(), o)
			}
			if print {
				return printConfig(cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
			}
			return check(cmd.OutOrStdout(), o)
		},
	}
	cmd.Flags().BoolVar(&print, "print", false, "print the configuration as it works, without secrets")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func checkFormat(format string) error {
	if format != "text" && format != "json" {
		return fmt.Errorf("--format is %q: write text or json", format)
	}
	return nil
}

// report is what check prints as JSON. Its shape is documented and stays.
type report struct {
	File     string          `json:"file"`
	Good     bool            `json:"good"`
	Problems []reportProblem `json:"problems"`
}

// reportProblem is one problem of a report.
type reportProblem struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Path     string `json:"path"`
	Problem  string `json:"problem"`
	Mend     string `json:"mend"`
	Excerpt  string `json:"excerpt"`
}

// checkJSON is check for programs.
func checkJSON(w io.Writer, o *options) error {
	c, err := inspect(o, true)
	if err != nil {
		return err
	}
	r := report{File: o.config, Good: len(c.all().Errors()) == 0, Problems: []reportProblem{}}
	for _, p := range c.all() {
		severity := "error"
		if p.Warning {
			severity = "warning"
		}
		r.Problems = append(r.Problems, reportProblem{severity, p.File, p.Line, p.Column, p.Path, p.What, p.Mend, p.Excerpt})
	}
	if err := writeJSON(w, r); err != nil {
		return err
	}
	if !r.Good {
		return quietError{}
	}
	return nil
}

// writeJSON writes v for programs, so that people can read it too.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// check says whether the configuration can be used.
func check(w io.Writer, o *options) error {
	if _, err := checked(w, o, true); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s: good\n", o.config)
	return err
}

// printConfig prints the configuration as it works, and what is wrong with it elsewhere.
func printConfig(w, problems io.Writer, o *options) error {
	cfg, err := checked(problems, o, true)
	if cfg != nil {
		if _, err := io.WriteString(w, cfg.YAML()); err != nil {
			return err
		}
	}
	return err
}

// checkup is all that can be found without asking anybody.
type checkup struct {
	cfg             *config.Config  // nil where the file itself is at fault
	problems, files config.Problems // with the file, and with the files that it names
}

// all are the problems in the order in which they are told.
func (c checkup) all() config.Problems { return slices.Concat(c.problems, c.files) }

// inspect finds every problem of the file and, with files, of the files that it names. It changes nothing and opens no connection.
func inspect(o *options, files bool) (checkup, error) {
	var c checkup
	var err error
	if c.cfg, err = load(o); err != nil {
		if !errors.As(err, &c.problems) {
			return c, err
		}
		return c, nil
	}
	c.problems = c.cfg.Warnings
	if files {
		c.files = c.cfg.CheckFiles()
	}
	if len(c.all().Errors()) == 0 {
		c.problems = append(c.problems, proxy.Check(c.cfg)...)
		if files {
			c.files = append(c.files, proxy.CheckFiles(c.cfg)...)
		}
	}
	return c, nil
}

// checked prints every problem that inspect finds. With an error, the configuration is nil where the file itself is at fault.
func checked(w io.Writer, o *options, files bool) (*config.Config, error) {
	c, err := inspect(o, files)
	if err != nil {
		return nil, err
	}
	for _, p := range c.all() {
		fmt.Fprintln(w, p)
		fmt.Fprint(w, p.Excerpt)
	}
	if n := len(c.all().Errors()); n > 0 {
		fmt.Fprintf(w, "%s: %s\n", o.config, count(n, "problem"))
		return c.cfg, quietError{}
	}
	return c.cfg, nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func newKeygen() *cobra.Command {
	var assertion bool
	c := &cobra.Command{
		Use: "keygen", Short: "Print a new key for session.keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if assertion {
				_, err := fmt.Fprint(cmd.OutOrStdout(), proxy.NewAssertionKey())
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), seal.NewKey())
			return err
		},
	}
	c.Flags().BoolVar(&assertion, "assertion", false, "print one for server.assertion_keys")
	return c
}

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintf(w, "postern %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
