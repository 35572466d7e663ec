package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"postern/cmd/postern/oauth2proxy"
)

// maxImport bounds what is read of one file.
const maxImport = 1 << 20

// newImport turns other programs' configurations into one of Postern.
func newImport() *cobra.Command {
	cmd := &cobra.Command{Use: "import", Short: "Turn another program's configuration into one of Postern", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newImportOAuth2Proxy())
	return cmd
}

func newImportOAuth2Proxy() *cobra.Command {
	var environment bool
	cmd := &cobra.Command{
		Use: "oauth2-proxy FILE...", Short: "Turn the configuration of an oauth2-proxy into one of Postern, on standard output",
		Long: "import oauth2-proxy reads the files of an oauth2-proxy and writes a configuration of Postern to standard output. Comments at its top say\n" +
			"what became of each option: kept, changed, or not supported and what there is instead.\n\n" +
			"A file that ends in .yaml or .yml is the alpha configuration, one that ends in .env has lines such as OAUTH2_PROXY_CLIENT_ID=wiki, and any\n" +
			"other is TOML. Give all that the oauth2-proxy has; of an option in several the last one counts. Flags have no file: write them as an .env.\n\n" +
			"Secrets are not copied: the configuration takes them from the environment, under the names that oauth2-proxy knows.\n\n" +
			"What was unsafe, or cannot be known, is a question. Questions go to standard error and stand in the configuration, which Postern and\n" +
			"`postern check` refuse until somebody has answered them and taken them out; the exit code is then 1.",
		Example: "  postern import oauth2-proxy oauth2-proxy.cfg > postern.yaml\n" +
			"  postern import oauth2-proxy oauth2-proxy.cfg alpha.yaml --environment > postern.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			inputs, err := readImport(args, environment)
			if err != nil {
				return err
			}
			return importOAuth2Proxy(cmd.OutOrStdout(), cmd.ErrOrStderr(), inputs)
		},
	}
	cmd.Flags().BoolVar(&environment, "environment", false, "read OAUTH2_PROXY_* of this process too, after the files")
	return cmd
}

// readImport reads the files, and with environment the variables that oauth2-proxy would read.
func readImport(files []string, environment bool) ([]oauth2proxy.Input, error) {
	var inputs []oauth2proxy.Input
	for _, name := range files {
		data, err := readBounded(name)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, oauth2proxy.Input{Name: name, Format: oauth2proxy.FormatOf(name), Data: data})
	}
	if environment {
		var lines strings.Builder
		for _, v := range os.Environ() {
			if strings.HasPrefix(v, oauth2proxy.EnvPrefix) {
				lines.WriteString(strings.ReplaceAll(v, "\n", " ") + "\n") // keys alone have several lines, and are not copied
			}
		}
		inputs = append(inputs, oauth2proxy.Input{Name: "the environment", Format: oauth2proxy.Env, Data: []byte(lines.String())})
	}
	if len(inputs) == 0 {
		return nil, errors.New("nothing to import: name files, or use --environment")
	}
	return inputs, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxImport+1))
	if err == nil && len(data) > maxImport {
		err = fmt.Errorf("%s is larger than 1 MiB", name)
	}
	return data, err
}

func importOAuth2Proxy(w, notes io.Writer, inputs []oauth2proxy.Input) error {
	made, err := oauth2proxy.Import(inputs)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, made.YAML); err != nil {
		return err
	}
	for _, q := range made.Questions {
		fmt.Fprintln(notes, q)
	}
	if n := len(made.Questions); n > 0 {
		fmt.Fprintf(notes, "%s to answer before Postern takes this configuration\n", count(n, "question"))
		return quietError{}
	}
	return nil
}
