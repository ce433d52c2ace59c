package server

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func newWeight(f *cmdutil.Factory) *cobra.Command {
	o := wish{factory: f}
	cmd := &cobra.Command{
		Use:   "weight SERVICE/NAME|NAME WEIGHT|default",
		Short: "Set a server's share relative to the others'",
		Long: fmt.Sprintf(`Set a server's weight: its share relative to the others' under policy weighted, 0 to %d, in place of the one that its agent
registers. Weight 0 gives it nothing. "default" takes the agent's own again.`, alloc.MaxWeight),
		Example: "  manycast server weight web/s1 3 --wait\n  manycast server weight web/s1 default",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.change, err = setWeight(args[1]); err != nil {
				return err
			}
			return o.runE(cmd, args)
		},
		ValidArgsFunction: pool.CompleteServers(f),
	}
	o.flags(cmd)
	return cmd
}

func setWeight(text string) (func(*allocv1.Operator), error) {
	if text == "default" {
		return func(p *allocv1.Operator) { p.Weight = nil }, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > alloc.MaxWeight {
		return nil, fmt.Errorf("weight %q: want a number from 0 to %d, or default for the agent's own", text, alloc.MaxWeight)
	}
	w := uint32(n)
	return func(p *allocv1.Operator) { p.Weight = &w }, nil
}
