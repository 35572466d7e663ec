package config_test

import (
	"fmt"
	"strings"
	"testing"

	"postern/config"
)

// routes10000 is a file with 10,000 routes, about as large as a file may be.
func routes10000() []byte {
	var b strings.Builder
	b.WriteString("providers:\n  corp: {issuer: \"https://id.example.com\", client_id: gateway, client_secret: secret}\nroutes:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "- host: app%d.example.com\n  upstream: http://10.0.%d.%d:8080\n", i, i/250, i%250)
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, "  access: {groups: [team-%d]}\n", i%100)
		case 1:
			fmt.Fprintf(&b, "  access: {rule: \"'team-%d' in groups\"}\n", i%100)
		}
	}
	return []byte(b.String())
}

func BenchmarkLoad10000Routes(b *testing.B) {
	file := routes10000()
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := config.Parse("postern.yaml", file, config.LoadOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
