package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"postern/config"
)

// newProviders shows the presets, which are files within the program.
func newProviders() *cobra.Command {
	return &cobra.Command{
		Use: "providers [NAME]", Short: "List the presets for known providers, or print one", Args: cobra.MaximumNArgs(1),
		Long: "providers lists what providers.*.preset can name: built-in defaults for a known provider, under the keys that you write beside it.\n" +
			"With a name it prints that preset: what to register at the provider, its oddities, and the keys that the preset sets.\n\n" +
			"In a preset, <url>, <tenant> and <client_id> stand for those keys of yours.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return printPreset(cmd.OutOrStdout(), args[0])
			}
			return listPresets(cmd.OutOrStdout())
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, p := range config.Presets() {
				names = append(names, p.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func listPresets(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PRESET\tPROVIDER\tWRITE BESIDES\tDOCUMENTATION")
	for _, p := range config.Presets() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, p.Title, strings.Join(p.Needs, ", "), p.Documentation)
	}
	return t.Flush()
}

func printPreset(w io.Writer, name string) error {
	p, ok := config.LookupPreset(name)
	if !ok {
		return fmt.Errorf("no preset is called %q; `postern providers` lists them", name)
	}
	_, err := io.WriteString(w, p.File)
	return err
}
