package lab

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/lab"
)

func newStatus(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "status [LAB]",
		Short: "Show the nodes and processes of labs that are up",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: topologies,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := t.store()
			if err != nil {
				return err
			}
			names := args
			if len(names) == 0 {
				if names, err = s.List(); err != nil {
					return err
				}
			}
			all := []lab.Status{}
			table := cmdutil.Table{Header: []string{"LAB", "NODE", "PROCESS", "PID", "RUNS", "LOG"}}
			for _, name := range names {
				l, err := s.Open(name)
				if err != nil {
					return err
				}
				st := l.Status()
				l.Close()
				all = append(all, st)
				for _, p := range st.Processes {
					table.Rows = append(table.Rows, []string{name, p.Node, p.Process, fmt.Sprint(p.PID), yesNo(p.Running), p.Log})
				}
			}
			return t.Print(all, table)
		},
	}
}
