// Command postern is an authenticating reverse proxy: it signs people in with an identity provider and forwards their requests with a
// bearer token and identity headers. `postern --config FILE` serves; see `postern help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when building: -ldflags "-X main.version=1.2.3".
var version = "dev"

func main() {
	os.Exit(run())
}

// run is main with an exit code, so that testscript can call it.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := newRoot().ExecuteContext(ctx); err != nil {
		var quiet quietError
		if !errors.As(err, &quiet) {
			fmt.Fprintln(os.Stderr, "postern:", err)
		}
		return 1
	}
	return 0
}

// quietError fails the command after it has said everything itself.
type quietError struct{}

func (quietError) Error() string { return "failed" }

// options are the flags that several commands share. Flags override the file.
type options struct {
	config, listen, adminListen, logLevel string
}

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "postern",
		Short: "Authenticating reverse proxy",
		Long: "Postern stands before web applications that know nothing of OAuth: it signs people in, keeps their session\n" +
			"and forwards every request with a bearer token and identity headers.\n\n" +
			"Without a command it serves.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&o.config, "config", "c", os.Getenv("POSTERN_CONFIG"), "configuration file (or POSTERN_CONFIG)")
	flags.StringVar(&o.listen, "listen", "", "overrides server.listen")
	flags.StringVar(&o.adminListen, "admin-listen", "", "overrides server.admin_listen")
	flags.StringVar(&o.logLevel, "log-level", "", "overrides server.log.level: debug, info, warn or error")
	root.AddCommand(
		&cobra.Command{
			Use: "serve", Short: "Serve (what postern does without a command)", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
		},
		newCheck(o),
		newDoctor(o),
		newExplain(o),
		newProviders(),
		newKeygen(),
		newLogin(o),
		newSessions(o),
		newHealth(o),
		newSchema(),
		newImport(),
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return printVersion(cmd.OutOrStdout()) },
		},
	)
	return root
}
