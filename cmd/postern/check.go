package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"

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
	cmd := &cobra.Command{
		Use: "check", Short: "Check the configuration and print every problem; change nothing, ask nobody", Args: cobra.NoArgs,
		Long: "check prints every problem of the configuration file and of the files that it names, and opens no connection.\n\n" +
			"With --print it writes the configuration as it works, presets and defaults filled in, to standard output, and problems to standard\n" +
			"error. Secrets are shown as [secret], what environment variables hold as ${NAME}.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if print {
				return printConfig(cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
			}
			return check(cmd.OutOrStdout(), o)
		},
	}
	cmd.Flags().BoolVar(&print, "print", false, "print the configuration as it works, without secrets")
	return cmd
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

// checked prints every problem of the file and, with files, of the files that it names. It changes nothing and opens no connection. With an error, the
// configuration is nil where the file itself is at fault.
func checked(w io.Writer, o *options, files bool) (*config.Config, error) {
	cfg, err := load(o)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
	case err != nil:
		return nil, err
	default:
		problems = cfg.Warnings
		if files {
			problems = append(problems, cfg.CheckFiles()...)
		}
	}
	if cfg != nil && len(problems.Errors()) == 0 {
		problems = append(problems, proxy.Check(cfg)...)
	}
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
	if n := len(problems.Errors()); n > 0 {
		fmt.Fprintf(w, "%s: %s\n", o.config, count(n, "problem"))
		return cfg, quietError{}
	}
	return cfg, nil
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
