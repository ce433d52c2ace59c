package service

import (
	"fmt"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/service"
)

// What became of a service.
const (
	created   = "created"
	changed   = "changed"
	unchanged = "unchanged"
	deleted   = "deleted"
)

type result struct {
	Name    string `json:"name"`
	Result  string `json:"result"`
	Warning string `json:"warning,omitempty"`
}

// warning says what the service cannot do with the servers that it has; empty: nothing. svc is what is there, or nil.
func warning(spec service.Service, svc *pool.Service) string {
	next := pool.Service{Spec: spec}
	if svc != nil {
		next.Servers, next.Committed, next.Prepared = svc.Servers, svc.Committed, svc.Prepared
	}
	if err := next.CheckJoins(); err != nil {
		return err.Error()
	}
	return ""
}

func printResults(f *cmdutil.Factory, results []result) error {
	table := cmdutil.Table{Header: []string{"NAME", "RESULT"}}
	for _, r := range results {
		table.Rows = append(table.Rows, []string{r.Name, r.Result})
		if r.Warning != "" {
			fmt.Fprintf(f.Err, "manycast: warning: service %s: %s\n", r.Name, r.Warning)
		}
	}
	return f.Print(results, table)
}
