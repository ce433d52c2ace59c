package flow

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/live"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
)

// lookEvery is how often it is looked whether connections have moved.
const lookEvery = 200 * time.Millisecond

type moveOptions struct {
	options
	user   netip.Addr
	port   uint16 // 0: all connections of the user
	to     string
	dryRun bool
}

func newMove(f *cmdutil.Factory) *cobra.Command {
	o := moveOptions{options: options{factory: f}}
	cmd := &cobra.Command{
		Use:   "move USER[:PORT] --service SERVICE --to SERVER",
		Short: "Move a user, with its connections, to a server",
		Long: `Move a user, with its connections, to a server. The user's address becomes a portion of that server's own in the service's prefixes, the
leader gives it there, and connections go by the service's handover. Take the address out of the prefixes ("manycast service show SERVICE -o yaml",
"manycast service apply") to let the policy have the user again.

Where the user is the server's already, what other servers keep of its connections is fetched; of those one alone, with a port. Whether a connection can
move its application decides, too: one that does not stays where it is, and is forwarded to.`,
		Example: "  manycast flow move 203.0.113.7 --service web --to s2 --dry-run\n  manycast flow move 203.0.113.7:40312 --service web --to s2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.user, o.port, err = parseUser(args[0]); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.serviceFlag(cmd)
	cmd.Flags().StringVar(&o.to, "to", "", "the server")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would move, and move nothing")
	for _, name := range []string{"service", "to"} {
		_ = cmd.MarkFlagRequired(name) // the flags are there
	}
	_ = cmd.RegisterFlagCompletionFunc("to", noArgs(pool.CompleteServerNames(f))) // the flag is there
	return cmd
}

// moved is what became of it, as `-o json` writes it.
type moved struct {
	Service     string      `json:"service"`
	User        string      `json:"user"`
	From        string      `json:"from"` // whose the user was
	To          string      `json:"to"`
	Prefix      string      `json:"prefix,omitempty"` // that was given to the server
	Connections []live.Flow `json:"connections"`      // that were elsewhere
	Moved       int         `json:"moved"`            // of these
	Result      string      `json:"result"`
}

func (o moveOptions) run(ctx context.Context) error {
	s, snap, servers, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	svc, err := snap.Service(o.service)
	if err != nil {
		return err
	}
	r := moved{Service: o.service, User: o.userText(), To: o.to}
	spec, err := o.plan(svc, &r)
	if err != nil {
		return err
	}
	if r.Connections, err = o.elsewhere(ctx, s, servers); err != nil {
		return err
	}
	switch {
	case o.dryRun:
		r.Result = o.would(svc, r)
	case r.Prefix != "":
		err = o.give(ctx, s, svc, spec, &r)
	case len(r.Connections) == 0:
		r.Result = "nothing to move: no other server has a connection of the user"
	default:
		if err = live.Fetch(ctx, s, o.to, o.service, r.Connections...); err == nil {
			err = o.await(ctx, s, svc, &r)
		}
	}
	if err != nil {
		return err
	}
	return o.factory.Print(r, r.table())
}

func (o moveOptions) userText() string {
	if o.port == 0 {
		return o.user.String()
	}
	return netip.AddrPortFrom(o.user, o.port).String()
}

// plan says whose the user is and, where it is not the server's, what the service has to say for it to be.
func (o moveOptions) plan(svc *pool.Service, r *moved) (spec service.Service, err error) {
	spec = svc.Spec
	if spec.Static() {
		return spec, fmt.Errorf("service %s: %w: change them there", spec.Name, pool.ErrStatic)
	}
	if _, ok := svc.Server(o.to); !ok {
		return spec, fmt.Errorf("server %s is none of service %s", o.to, spec.Name)
	}
	var standin bool
	if r.From, standin = ownerOf(svc.Spec, svc.Committed, netip.AddrPortFrom(o.user, o.port)); r.From == o.to {
		return spec, nil
	}
	_, split := spec.Split.Of(o.user)
	switch {
	case standin || split:
		return spec, fmt.Errorf("%s is %s's user, and only single addresses of IPv4 that the service does not split can be given to a server of their own", r.User, dash(r.From))
	case o.port != 0:
		return spec, fmt.Errorf("%s is %s's user, who alone may have its connections: leave the port out to give the user to %s", o.user, dash(r.From), o.to)
	}
	host := portion.Host(o.user)
	spec.Prefixes = slices.DeleteFunc(slices.Clone(spec.Prefixes), func(p policy.Prefix) bool { return p.Portion == host })
	spec.Prefixes = append(spec.Prefixes, policy.Prefix{Portion: host, Servers: []string{o.to}})
	r.Prefix = host.String()
	if err := spec.Validate(); err != nil {
		return spec, err
	}
	return spec, o.check(svc, spec)
}

// check asks the leader's own rules whether the server would have the user.
func (o moveOptions) check(svc *pool.Service, spec service.Service) error {
	then := *svc
	then.Spec = spec
	next, _, err := then.Next()
	if err != nil {
		return fmt.Errorf("service %s: %w", spec.Name, err)
	}
	if owner, _ := ownerOf(spec, next, netip.AddrPortFrom(o.user, 0)); owner != o.to {
		m, _ := svc.Server(o.to)
		if m.Drained {
			return fmt.Errorf("server %s is drained: `manycast server undrain %s/%s` first", o.to, spec.Name, o.to)
		}
		return fmt.Errorf("server %s (%s) would not get %s: the leader would give it to %s", o.to, m.Health(), o.user, owner)
	}
	return nil
}

// ownerOf is whose a user is; standin: by what stands in for it, which no prefix of the service's is for.
func ownerOf(spec service.Service, a alloc.Allocation, from netip.AddrPort) (owner string, standin bool) {
	user, standin := spec.Split.User(from)
	switch {
	case a.Zero():
		return "", standin
	case standin:
		return a.OwnerOf(a.Slots.Index(user)), true
	}
	return a.OwnerOf(a.CellOf(user)), false
}

// elsewhere are the user's connections at other servers.
func (o moveOptions) elsewhere(ctx context.Context, s *pool.Store, servers []string) ([]live.Flow, error) {
	others := slices.DeleteFunc(slices.Clone(servers), func(server string) bool { return server == o.to })
	flows, _, err := o.find(ctx, s, others, live.Query{Service: o.service, User: o.userText(), State: "all"})
	return flows, err
}

// would says what a dry run would do.
func (o moveOptions) would(svc *pool.Service, r moved) string {
	switch {
	case r.Prefix != "":
		return fmt.Sprintf("%s would go from %s to %s, its connections by %s", r.Prefix, dash(r.From), r.To, svc.Spec.Handover)
	case len(r.Connections) == 0:
		return "nothing to move: no other server has a connection of the user"
	}
	return fmt.Sprintf("%s would ask for them", r.To)
}

// give writes the service, and waits until the leader has given the user to the server and connections have moved.
func (o moveOptions) give(ctx context.Context, s *pool.Store, svc *pool.Service, spec service.Service, r *moved) error {
	err := s.Write(ctx, bus.BucketServices, spec.Name, service.ToProto(spec), svc.Revision)
	if errors.Is(err, bus.ErrConflict) {
		return fmt.Errorf("service %s: somebody else changed it at the same time: try again: %w", spec.Name, err)
	}
	if err != nil {
		return err
	}
	if _, err := s.Wait(ctx, func(snap *pool.Snapshot) bool {
		now, err := snap.Service(o.service)
		if err != nil {
			return true // it was deleted meanwhile
		}
		owner, _ := ownerOf(now.Spec, now.Committed, netip.AddrPortFrom(o.user, 0))
		return owner == o.to
	}); err != nil {
		return fmt.Errorf("%s is %s's by the service's prefixes, and not yet by its allocation: %w", r.Prefix, o.to, err)
	}
	return o.await(ctx, s, svc, r)
}

// await waits until the connections are at the server, as long as they may take.
func (o moveOptions) await(ctx context.Context, s *pool.Store, svc *pool.Service, r *moved) error {
	if !svc.Spec.Handover.Has(service.Transfer) {
		r.Result = fmt.Sprintf("the user is %s's; its connections go by %s", o.to, svc.Spec.Handover)
		return nil
	}
	deadline := time.NewTimer(min(svc.Spec.Handover.Deadline+lookEvery, o.factory.Timeout))
	defer deadline.Stop()
	for {
		here, _, err := live.List(ctx, s, o.to, live.Query{Service: o.service, User: o.userText(), State: live.Own})
		if err != nil {
			return err
		}
		if r.Moved = o.arrived(here, r.Connections); r.Moved == len(r.Connections) {
			r.Result = "moved"
			return nil
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			r.Result = fmt.Sprintf("%d did not move: over, or their application keeps them: `manycast flow status --counters` says why", len(r.Connections)-r.Moved)
			return nil
		}
	}
}

func (o moveOptions) arrived(here, wanted []live.Flow) (n int) {
	for _, f := range wanted {
		if slices.ContainsFunc(here, func(h live.Flow) bool { return h.User == f.User && h.VIP == f.VIP }) {
			n++
		}
	}
	return n
}

func (r moved) table() cmdutil.Table {
	table := cmdutil.Table{Header: []string{"SERVICE", "USER", "FROM", "TO", "CONNECTIONS", "AT", "MOVED", "RESULT"}}
	var at []string
	for _, f := range r.Connections {
		if !slices.Contains(at, f.Server) {
			at = append(at, f.Server)
		}
	}
	table.Rows = append(table.Rows, []string{
		r.Service, r.User, dash(r.From), r.To, count(uint64(len(r.Connections))), dash(strings.Join(at, ",")), count(uint64(r.Moved)), r.Result,
	})
	return table
}
