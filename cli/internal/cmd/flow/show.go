package flow

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/live"
)

type showOptions struct {
	options
	user string
}

func newShow(f *cmdutil.Factory) *cobra.Command {
	o := showOptions{options: options{factory: f}}
	cmd := &cobra.Command{
		Use:   "show USER:PORT | USER",
		Short: "Show where a connection is",
		Long: `Show where a connection is, or all of a user: which server has it, whose the user is, and, where it moves, from and to whom and how far
it is. A connection on its way shows at both servers.`,
		Example: "  manycast flow show 203.0.113.7:40312\n  manycast flow show [2001:db8::7]:40312 --service web -o yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.user = args[0]
			return o.run(cmd.Context())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.serviceFlag(cmd)
	return cmd
}

func (o showOptions) run(ctx context.Context) error {
	if _, _, err := parseUser(o.user); err != nil {
		return err
	}
	s, _, servers, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	flows, _, err := o.find(ctx, s, servers, live.Query{Service: o.service, User: o.user, State: "all"})
	if err != nil {
		return err
	}
	if len(flows) == 0 {
		return fmt.Errorf("no server that answers has a connection of %s: it is over, or of another service", o.user)
	}
	return o.factory.Print(flows, table(flows))
}

// parseUser reads an address, or an address and port.
func parseUser(text string) (user netip.Addr, port uint16, err error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a, 0, nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil || a.Port() == 0 {
		return user, 0, fmt.Errorf("user %q: want an address, or an address and port, such as 203.0.113.7:40312 or [2001:db8::7]:40312", text)
	}
	return a.Addr(), a.Port(), nil
}
