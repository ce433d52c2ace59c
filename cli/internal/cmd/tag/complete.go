package tag

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// completionTimeout is how long a shell waits at most.
const completionTimeout = 700 * time.Millisecond

// complete gives what words makes of the routers' status.
func (o *options) complete(cmd *cobra.Command, words func(context.Context, way, []*tdpdv1.Answer) []string) ([]string, cobra.ShellCompDirective) {
	quick, factory := *o, *o.factory
	factory.Timeout, factory.Err = min(factory.Timeout, completionTimeout), io.Discard
	quick.factory = &factory
	w, err := quick.open(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer w.Close()
	all, err := quick.statuses(cmd.Context(), w)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return words(cmd.Context(), w, all), cobra.ShellCompDirectiveNoFileComp
}

func (o *options) completeRouters(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, func(_ context.Context, _ way, all []*tdpdv1.Answer) (names []string) {
		for _, answer := range all {
			names = append(names, answer.GetRouter())
		}
		return names
	})
}

// completeFirstRouter is for commands with one argument.
func (o *options) completeFirstRouter(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.completeRouters(cmd, args, word)
}

func (o *options) completeNeighbors(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.complete(cmd, func(_ context.Context, _ way, all []*tdpdv1.Answer) (ids []string) {
		for _, answer := range all {
			for _, n := range answer.GetStatus().GetNeighbors() {
				ids = append(ids, strings.TrimSuffix(n.GetId(), ":0"))
			}
		}
		return ids
	})
}

// completeServers asks one router for the servers: all have the same.
func (o *options) completeServers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.complete(cmd, func(ctx context.Context, w way, all []*tdpdv1.Answer) (servers []string) {
		ctx, cancel := context.WithTimeout(ctx, completionTimeout)
		defer cancel()
		for _, answer := range all[:min(1, len(all))] {
			_ = eachFEC(ctx, w, answer.GetRouter(), &tdpdv1.FECsRequest{Servers: true}, func(f *tdpdv1.FEC) { // what has come is completed
				if p, err := netip.ParsePrefix(f.GetPrefix()); err == nil {
					servers = append(servers, p.Addr().String())
				}
			})
		}
		return servers
	})
}
