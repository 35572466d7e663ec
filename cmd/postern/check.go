package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"postern/config"
	"postern/session/seal"
)

// load reads the configuration and applies the flags.
func load(o *options) (*config.Config, error) {
	if o.config == "" {
		return nil, errors.New("no configuration: use --config FILE or set POSTERN_CONFIG")
	}
	return config.Load(o.config, config.LoadOptions{Listen: o.listen, AdminListen: o.adminListen, LogLevel: o.logLevel})
}

// check prints every problem of the file and of the files that it names. It changes nothing and opens no connection.
func check(w io.Writer, o *options) error {
	cfg, err := load(o)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
	case err != nil:
		return err
	default:
		problems = append(cfg.Warnings, cfg.CheckFiles()...)
	}
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
	if n := len(problems.Errors()); n > 0 {
		fmt.Fprintf(w, "%s: %s\n", o.config, count(n, "problem"))
		return quietError{}
	}
	fmt.Fprintf(w, "%s: good\n", o.config)
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func keygen(w io.Writer) error {
	_, err := fmt.Fprintln(w, seal.NewKey())
	return err
}

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintf(w, "postern %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
