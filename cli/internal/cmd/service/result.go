package service

import "github.com/manycast/manycast/cli/internal/cmdutil"

// What became of a service.
const (
	created   = "created"
	changed   = "changed"
	unchanged = "unchanged"
	deleted   = "deleted"
)

type result struct {
	Name   string `json:"name"`
	Result string `json:"result"`
}

func printResults(f *cmdutil.Factory, results []result) error {
	table := cmdutil.Table{Header: []string{"NAME", "RESULT"}}
	for _, r := range results {
		table.Rows = append(table.Rows, []string{r.Name, r.Result})
	}
	return f.Print(results, table)
}
