package main

import (
	"io"

	"github.com/spf13/cobra"

	"postern/config"
)

// newSchema prints what editors need to help with a configuration file.
func newSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration file, for editors", Args: cobra.NoArgs,
		Long: "schema prints the JSON Schema (draft 2020-12) of the configuration file. Editors with a YAML language server complete and explain\n" +
			"keys with it, once the file begins with the line\n\n" +
			"  # yaml-language-server: $schema=postern.schema.json\n\n" +
			"It knows keys, forms and words; `postern check` knows the rest.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), config.Schema())
			return err
		},
	}
}
