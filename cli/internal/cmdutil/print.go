package cmdutil

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// Table is what `-o table` shows of a value.
type Table struct {
	Header []string
	Rows   [][]string
}

// Print writes value as JSON or YAML (same names: the value's json tags), or table, as the user asked.
func (f *Factory) Print(value any, table Table) error {
	switch f.Output {
	case "json":
		enc := json.NewEncoder(f.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(value)
	case "yaml":
		data, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		var plain any
		if err := yaml.Unmarshal(data, &plain); err != nil { // JSON is YAML
			return fmt.Errorf("output: %w", err)
		}
		out, err := yaml.Marshal(plain)
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		_, err = f.Out.Write(out)
		return err
	}
	w := tabwriter.NewWriter(f.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(table.Header, "\t"))
	for _, row := range table.Rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}
