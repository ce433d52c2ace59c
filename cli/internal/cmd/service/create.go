package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
)

type createOptions struct {
	factory *cmdutil.Factory
	name    string
	vip     string
	vip6    string
	group   string
	mode    string
	ports   []string
	policy  string
	slots   string
}

func newCreate(f *cmdutil.Factory) *cobra.Command {
	o := createOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "create NAME --vip ADDRESS [--group ADDRESS | --mode tags] --port PROTO/NUMBER...",
		Short: "Create a service",
		Example: "  manycast service create web --vip 192.0.2.80 --group 239.80.80.80 --port tcp/80 --port tcp/443 --policy weighted\n" +
			"  manycast service create api --vip 192.0.2.81 --vip6 2001:db8::81 --mode tags --port tcp/443",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return o.run(cmd.Context())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.StringVar(&o.vip, "vip", "", "virtual IP: the IPv4 address that users connect to")
	flags.StringVar(&o.vip6, "vip6", "", "the IPv6 one, with --mode tags")
	flags.StringVar(&o.group, "group", "", "multicast group of the servers, out of 239.0.0.0/8; --mode tags needs none")
	flags.StringVar(&o.mode, "mode", service.Multicast, "how users reach their servers: multicast or tags")
	flags.StringSliceVar(&o.ports, "port", nil, "port, such as tcp/80; may be given several times")
	flags.StringVar(&o.policy, "policy", string(alloc.Equal), "how shares are found: "+policy.Policies+" (geo needs prefixes: `apply`)")
	flags.StringVar(&o.slots, "slots", "suffix/8", "how the source space is cut: suffix or prefix, and the number of bits, 1 to 16")
	for _, name := range []string{"vip", "port"} {
		_ = cmd.MarkFlagRequired(name) // the flag is there
	}
	for name, words := range map[string][]string{
		"policy": {"equal", "weighted", "load", "least-connections", "wanted"}, "slots": {"suffix/8", "prefix/8"}, "port": {"tcp/80", "tcp/443"},
		"mode": {service.Multicast, service.Tags}, "vip": nil, "vip6": nil, "group": nil,
	} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	}
	return cmd
}

func (o createOptions) run(ctx context.Context) error {
	spec, err := o.spec()
	if err != nil {
		return err
	}
	s, err := pool.Open(ctx, o.factory)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	if _, err := snap.Service(spec.Name); err == nil {
		return o.exists()
	}
	if err := service.ValidateAll(append(snap.Specs(), spec)); err != nil {
		return err
	}
	err = s.Write(ctx, bus.BucketServices, spec.Name, service.ToProto(spec), 0)
	if errors.Is(err, bus.ErrConflict) {
		return o.exists()
	}
	if err != nil {
		return err
	}
	return printResults(o.factory, []result{{spec.Name, created, warning(spec, nil)}})
}

func (o createOptions) exists() error {
	return fmt.Errorf("service %q exists already: change it with `manycast service apply -f FILE`, see it with `manycast service show %s`",
		o.name, o.name)
}

func (o createOptions) spec() (service.Service, error) {
	spec := service.Service{Name: o.name, Mode: o.mode, Policy: alloc.Policy(o.policy), Handover: service.DefaultHandover()}
	if o.mode == service.Tags {
		spec.Refuse, spec.Steering = service.RefuseReset, service.Proactive
	}
	var err error
	if spec.VIP, err = netip.ParseAddr(o.vip); err != nil {
		return spec, fmt.Errorf("--vip %q is not an address", o.vip)
	}
	if o.group == "" && o.mode != service.Tags {
		return spec, errors.New("--group is missing: name a multicast group out of 239.0.0.0/8, or take --mode tags")
	}
	for flag, of := range map[string]struct {
		text string
		addr *netip.Addr
	}{"vip6": {o.vip6, &spec.VIP6}, "group": {o.group, &spec.Group}} {
		if of.text == "" {
			continue
		}
		if *of.addr, err = netip.ParseAddr(of.text); err != nil {
			return spec, fmt.Errorf("--%s %q is not an address", flag, of.text)
		}
	}
	if spec.Slots, err = alloc.ParseSlots(o.slots); err != nil {
		return spec, fmt.Errorf("--slots: %w", err)
	}
	for _, text := range o.ports {
		port, err := service.ParsePort(text)
		if err != nil {
			return spec, fmt.Errorf("--port: %w", err)
		}
		spec.Ports = append(spec.Ports, port)
	}
	return spec, spec.Validate()
}
