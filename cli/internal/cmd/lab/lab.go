// Package lab is `manycast lab`: networks of the real daemons in network namespaces of one machine.
package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/lab"
)

// tools are what the verbs work with.
type tools struct {
	*cmdutil.Factory
	store func() (*lab.Store, error)
}

// New returns `manycast lab`.
func New(f *cmdutil.Factory) *cobra.Command {
	return newCommand(&tools{f, func() (*lab.Store, error) { return store(f) }})
}

func newCommand(t *tools) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run networks of the real daemons in network namespaces",
		Long: `Run networks of the real daemons in network namespaces of this machine, as root.

A topology says what there is: routers, servers, users, links, switches, processes. What a lab makes lies below ` + lab.DefaultRoot + `
and in namespaces of its own names; down removes all of it, also after a crash.`,
	}
	cmd.AddCommand(newList(t), newUp(t), newDown(t), newStatus(t), newExec(t), newRun(t))
	cmd.AddCommand(newApp(t.Factory), newPlain(t.Factory), newClient(t.Factory), newStreams(t.Factory), newFlows(t.Factory), newIntruder(t.Factory), newWatch(t.Factory))
	return cmd
}

// store is this machine's labs; the daemons are looked for beside the manycast binary.
func store(f *cmdutil.Factory) (*lab.Store, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("where the daemons are: %w", err)
	}
	return &lab.Store{Root: lab.DefaultRoot, Bin: filepath.Dir(self), Notice: f.Err}, nil
}

// topologies completes and checks names of topologies.
func topologies(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return lab.Topologies(), cobra.ShellCompDirectiveNoFileComp
}

// theLab opens the lab of that name, or the only one that is up.
func theLab(s *lab.Store, name string) (*lab.Lab, error) {
	if name == "" {
		names, err := s.List()
		if err != nil {
			return nil, err
		}
		switch len(names) {
		case 0:
			return nil, fmt.Errorf("no lab is up: manycast lab up %s", strings.Join(lab.Topologies(), "|"))
		case 1:
			name = names[0]
		default:
			return nil, fmt.Errorf("several labs are up: name one of %s with --lab", strings.Join(names, ", "))
		}
	}
	return s.Open(name)
}
