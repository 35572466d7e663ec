package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"postern/config"
)

// defaultAdminListen is where server.admin_listen is without a file.
const defaultAdminListen = "127.0.0.1:9090"

// newHealth asks a running Postern how it is, for container health checks where there is no curl.
func newHealth(o *options) *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use: "health", Short: "Ask a running Postern how it is; exit 0 means well", Args: cobra.NoArgs,
		Long: "health asks /healthz on the admin listener, or /readyz with --ready. The address is --admin-listen, else server.admin_listen of the\n" +
			"configuration file, else " + defaultAdminListen + ".",
		RunE: func(cmd *cobra.Command, _ []string) error { return health(cmd.Context(), cmd.OutOrStdout(), o, ready) },
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether requests should be sent here")
	return cmd
}

func health(ctx context.Context, w io.Writer, o *options, ready bool) error {
	address := o.adminListen
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	var pair *config.TLS
	if address == "" && o.config != "" {
		cfg, err := load(o)
		if err != nil {
			return err
		}
		address, pair = cfg.Server.AdminListen, cfg.Server.AdminTLS()
	}
	if address == "" {
		address = defaultAdminListen
	}
	base, err := adminBase(address, pair, t)
	if err != nil {
		return err
	}
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return err
	}
	resp, err := newAdminHTTP(t).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", path, resp.Status)
	}
	return nil
}
