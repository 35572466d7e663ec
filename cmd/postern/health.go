package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
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
	if address == "" && o.config != "" {
		cfg, err := load(o)
		if err != nil {
			return err
		}
		address = cfg.Server.AdminListen
	}
	if address == "" {
		address = defaultAdminListen
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("admin address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{Proxy: nil}}
	resp, err := client.Do(req)
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
