package main

import (
	"fmt"
	"strings"
	"testing"

	"postern/config"
	"postern/proxy"
	"postern/session/memstore"
)

// Every preset becomes a working provider with what it says that it needs: its expressions compile, and nothing in it contradicts what the
// protocol's own package asks for.
func TestPresetsBuild(t *testing.T) {
	values := map[string]string{"url": "https://id.example.com", "tenant": "corp", "client_id": "wiki", "client_secret": "secret"}
	for _, p := range config.Presets() {
		t.Run(p.Name, func(t *testing.T) {
			var file strings.Builder
			fmt.Fprintf(&file, "providers:\n  it:\n    preset: %s\n", p.Name)
			for _, key := range p.Needs {
				fmt.Fprintf(&file, "    %s: %s\n", key, values[key])
			}
			file.WriteString("routes:\n  - {host: wiki.example.com, upstream: \"http://127.0.0.1:3000\", access: signed_in}\n")
			cfg, err := config.Parse("preset.yaml", []byte(file.String()), config.LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			store := memstore.New(memstore.Options{})
			defer store.Close()
			built, err := proxy.New(cfg, proxy.Env{Store: store})
			if err != nil {
				t.Fatal(err)
			}
			if err := built.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
