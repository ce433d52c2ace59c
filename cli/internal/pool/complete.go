package pool

import (
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
)

// completionTimeout is how long a shell waits for names at most.
const completionTimeout = 700 * time.Millisecond

// CompleteServices completes the first argument with the names of services.
func CompleteServices(f *cmdutil.Factory) cobra.CompletionFunc {
	return complete(f, func(snap *Snapshot) []string { return snap.names() })
}

// CompleteServers completes the first argument with SERVICE/NAME, and NAME alone where a server is in several services.
func CompleteServers(f *cmdutil.Factory) cobra.CompletionFunc {
	return complete(f, func(snap *Snapshot) []string {
		var names []string
		in := map[string]int{}
		for _, svc := range snap.Services {
			for _, m := range svc.Servers {
				names = append(names, m.Service+"/"+m.Name)
				if in[m.Name]++; in[m.Name] == 2 {
					names = append(names, m.Name)
				}
			}
		}
		return names
	})
}

// CompleteServerNames completes the first argument with the names of servers.
func CompleteServerNames(f *cmdutil.Factory) cobra.CompletionFunc {
	return complete(f, func(snap *Snapshot) []string {
		var names []string
		for _, svc := range snap.Services {
			for _, m := range svc.Servers {
				names = append(names, m.Name)
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	})
}

func complete(f *cmdutil.Factory, names func(*Snapshot) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		quick := *f
		quick.Timeout, quick.Err = min(f.Timeout, completionTimeout), io.Discard
		s, err := Open(cmd.Context(), &quick)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.Close()
		snap, err := s.Load(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(snap), cobra.ShellCompDirectiveNoFileComp
	}
}
