package keyservice

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/cli/internal/registry"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
)

type createOptions struct {
	*tools
	name, vip, owner string
	destinations     []string
	ttl              time.Duration
	recipients       keybus.Recipients
}

func newCreate(t *tools) *cobra.Command {
	o := createOptions{tools: t}
	cmd := &cobra.Command{
		Use:   "create NAME --vip ADDRESS --owner MAIL --destination PREFIX",
		Short: "Make a service's key pair, publish it, and hand the private key to its servers",
		Long: `Make a service's key pair (2100 of Fig 21), publish its record under the VIP's name and address (2110), and hand the private key to its servers:
sealed to each member, by the bus. Nobody else has it, unless --key-out keeps a copy. Either all of it happens, or nothing.

A service with a VIP of IPv6, too, has a second record for that, under a name of its own. How long a key that was taken out may still count is --ttl.`,
		Example: `  manycast key service create shop.cast.example --vip 192.0.2.80 --owner ops@example.com \
    --destination 10.2.0.0/24 --destination 10.3.0.11 --member s1 --member s2`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = dns.CanonicalName(args[0])
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.vip, "vip", "", "the service's VIP")
	flags.StringVar(&o.owner, "owner", "", "mail address of the service's owner")
	flags.StringSliceVar(&o.destinations, "destination", nil, "where its servers are: prefixes or addresses; connections are led nowhere else")
	flags.DurationVar(&o.ttl, "ttl", defaultTTL, "how long users' hosts may keep the record")
	o.recipients.Add(flags)
	for _, name := range []string{"vip", "owner", "destination"} {
		_ = cmd.MarkFlagRequired(name) // the flag is there
	}
	return cmd
}

func (o *createOptions) run(ctx context.Context) error {
	g, r, err := o.make()
	if err != nil {
		return err
	}
	if o.recipients.None() {
		return errNobody
	}
	reg, err := o.flags.Open(o.ttl, o.Now)
	if err != nil {
		return err
	}
	to, err := o.recipients.Resolve(ctx, o.open)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, _, err := reg.Find(ctx, r.Name); !errors.Is(err, record.ErrNone) {
		if err == nil {
			err = registry.ErrNameTaken
		}
		return fmt.Errorf("service %s: %w", r.Name, err)
	}
	if err := reg.Replace(ctx, nil, &r); err != nil {
		return err
	}
	if err := to.Hand(ctx, g); err != nil {
		return errors.Join(err, withdraw(ctx, reg, r))
	}
	v := newView(r, reg.TTL)
	v.Members = to.Names()
	return o.print(v)
}

// make makes the key pair and the record that the flags say.
func (o *createOptions) make() (keyfile.Group, record.Record, error) {
	vip, err := netip.ParseAddr(o.vip)
	if err != nil || vip.IsMulticast() {
		return keyfile.Group{}, record.Record{}, fmt.Errorf("--vip %.60q: want a unicast address", o.vip)
	}
	if _, err := seconds(o.ttl); err != nil {
		return keyfile.Group{}, record.Record{}, err
	}
	g, err := keyfile.NewGroup(o.name, vip)
	if err != nil {
		return keyfile.Group{}, record.Record{}, err
	}
	g.NotBefore = o.Now().Add(-clockSlack).UTC().Truncate(time.Second)
	r := record.Record{Name: o.name, Address: vip, Owner: o.owner, Keys: []record.Key{g.Public()}}
	if r.Destinations, err = prefixes(o.destinations); err != nil {
		return keyfile.Group{}, record.Record{}, err
	}
	return g, r, r.Validate()
}

// withdraw takes a record back, also where the command itself ran out of time.
func withdraw(ctx context.Context, reg *registry.Registry, r record.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := reg.Replace(ctx, &r, nil); err != nil {
		return fmt.Errorf("and the record of %s could not be taken back: %w", r.Name, err)
	}
	return nil
}
