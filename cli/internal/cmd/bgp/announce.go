package bgp

import (
	"github.com/spf13/cobra"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

func newAnnounce(o *options) *cobra.Command {
	path := &tdpdv1.BGPPath{}
	var med, localPref uint32
	cmd := &cobra.Command{
		Use:   "announce PREFIX",
		Short: "Have a router announce a prefix, by hand",
		Long: `Have a router announce a prefix, by hand: to all its neighbors that policy lets hear of it, until it is withdrawn, over restarts, too.
Said again it replaces what was said before. VIPs of services need none of this: their directors announce them by themselves.`,
		Example: `  manycast bgp announce 192.0.2.80/32 --router r1
  manycast bgp announce 192.0.2.80/32 --router r1 --community graceful-shutdown
  manycast bgp announce 10.9.0.80/32 --router r1 --label 1000`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path.Prefix, path.Labelled = args[0], cmd.Flags().Changed("label")
			if cmd.Flags().Changed("med") {
				path.Med = &med
			}
			if cmd.Flags().Changed("local-pref") {
				path.LocalPref = &localPref
			}
			return o.change(cmd.Context(), args[0], &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Announce{Announce: path}})
		},
	}
	cmd.Flags().Uint32Var(&path.Label, "label", 0, "with this label (RFC 8277)")
	cmd.Flags().StringVar(&path.NextHop, "next-hop", "", "where packets go; else to the router's end of each session")
	cmd.Flags().Uint32Var(&med, "med", 0, "multi-exit discriminator: neighbors prefer the smaller one")
	cmd.Flags().Uint32Var(&localPref, "local-pref", 0, "local preference, for neighbors of the same AS")
	cmd.Flags().Uint32Var(&path.Prepend, "prepend", 0, "own AS in front, so often beyond the once; 0 to 31")
	cmd.Flags().StringSliceVar(&path.Communities, "community", nil, "communities, such as 65001:100 or graceful-shutdown")
	return cmd
}

func newWithdraw(o *options) *cobra.Command {
	path := &tdpdv1.BGPPath{}
	cmd := &cobra.Command{
		Use:   "withdraw PREFIX",
		Short: "Have a router withdraw what it announces by hand",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path.Prefix = args[0]
			return o.change(cmd.Context(), args[0], &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Withdraw{Withdraw: path}})
		},
	}
	cmd.Flags().BoolVar(&path.Labelled, "labelled", false, "the one with a label")
	return cmd
}

func newClear(o *options) *cobra.Command {
	r := &tdpdv1.BGPClearRequest{}
	cmd := &cobra.Command{
		Use:   "clear NEIGHBOR",
		Short: "End a router's session with a neighbor, which may come back at once",
		Long: `End a router's session with a neighbor, which may come back at once. What both have told goes until then. With --soft the session goes on, and both
tell all again, by the policies that hold now.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNeighbors,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Neighbor = args[0]
			return o.change(cmd.Context(), args[0], &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Clear{Clear: r}})
		},
	}
	cmd.Flags().BoolVar(&r.Soft, "soft", false, "both tell all again, and the session goes on (RFC 2918)")
	return cmd
}
