package group

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/cli/internal/registry"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
)

const (
	defaultTTL = time.Minute
	// tries bounds the search for an address that is free.
	tries = 32
	// clockSlack lets members whose clocks are behind use a new group's key at once.
	clockSlack = time.Minute
)

var errNobody = errors.New("nobody would have the private key: name members with --member or --member-key, or keep it with --key-out FILE")

type createOptions struct {
	*tools
	name            string
	owner           string
	private, public bool
	address         string
	lasting         time.Duration
	sessions        []string
	until           time.Time // in place of lasting
	recipients      keybus.Recipients
	ttl             time.Duration
	random          func() uint32
}

func newCreate(t *tools) *cobra.Command {
	o := createOptions{tools: t, random: rand.Uint32}
	cmd := &cobra.Command{
		Use:   "create NAME --owner MAIL --private|--public",
		Short: "Set a group up: key pair, address, record, private key to its members",
		Long: `Set a group up, from key pair to usable (Fig 8).

The group gets a key pair and an address that nobody has: out of 239.192/15 if permanent, 239.194/15 if temporary (--for), 224.2.128/17 if public.
Its record goes into the DNS under name and address. The private key is sealed to each member and handed over by the bus; nobody else has it,
unless --key-out keeps a copy. Either all of it happens, or nothing.`,
		Example: `  manycast group create web.cast.example --owner ops@example.com --private --member s1 --member s2 --member s3
  manycast group create talk.cast.example --owner ops@example.com --private --for 2h --sessions 'Mon-Fri 08:00-18:00 UTC' --member s1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = fullName(args[0])
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.owner, "owner", "", "mail address of the group's owner")
	flags.BoolVar(&o.private, "private", false, "members only, with signed joins")
	flags.BoolVar(&o.public, "public", false, "for everybody")
	flags.StringVar(&o.address, "address", "", "address of the group, or a VIP; default: one that is free")
	flags.DurationVar(&o.lasting, "for", 0, "temporary: the group ends that long from now")
	flags.StringArrayVar(&o.sessions, "sessions", nil, "when it may be joined, like 'Mon-Fri 08:00-18:00 UTC'; default: any time")
	flags.DurationVar(&o.ttl, "ttl", defaultTTL, "how long routers may keep the record")
	o.recipients.Add(flags)
	cmd.MarkFlagsOneRequired("private", "public")
	cmd.MarkFlagsMutuallyExclusive("private", "public")
	_ = cmd.MarkFlagRequired("owner") // the flag is there
	return cmd
}

func (o *createOptions) run(ctx context.Context) error {
	r, err := o.record()
	if err != nil {
		return err
	}
	if o.private && o.recipients.None() {
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
	if err := o.setUp(ctx, reg, &r, to); err != nil {
		return err
	}
	v := newView(r)
	v.Members = to.Names()
	return o.Print(v, v.details())
}

// setUp makes the key pair, publishes the record and hands the private key over: all of it, or nothing.
func (o *createOptions) setUp(ctx context.Context, reg *registry.Registry, r *record.Record, to *keybus.Handover) error {
	g, err := keyfile.NewGroup(r.Name, r.Address)
	if err != nil {
		return err
	}
	g.NotBefore = o.Now().Add(-clockSlack).UTC().Truncate(time.Second)
	r.Keys = []record.Key{g.Public()}
	if err := o.publish(ctx, reg, r); err != nil {
		return err
	}
	g.Address = r.Address
	if err := to.Hand(ctx, g); err != nil {
		return errors.Join(err, withdraw(ctx, reg, *r))
	}
	return nil
}

// record is what the flags say; the address is the zero Addr where one is to be found.
func (o *createOptions) record() (record.Record, error) {
	r := record.Record{Name: o.name, Owner: o.owner, Private: o.private}
	r.Until = o.until
	var err error
	if r.Sessions, err = record.ParseSessions(strings.Join(o.sessions, ",")); err != nil {
		return r, err
	}
	if o.lasting < 0 || o.lasting > 0 && o.lasting < time.Second {
		return r, fmt.Errorf("for %s: want a second or more", o.lasting)
	}
	if o.lasting > 0 {
		r.Until = o.Now().Add(o.lasting).UTC().Truncate(time.Second)
	}
	if o.ttl < time.Second || o.ttl > 24*time.Hour {
		return r, fmt.Errorf("--ttl %s: want 1s to 24h", o.ttl)
	}
	probe := r // all but the keys can be checked before anything is asked
	probe.Keys = []record.Key{record.NewKey(make([]byte, 32))}
	probe.Address = pick(pool(o.private, !r.Until.IsZero()), 1)
	if o.address != "" {
		if r.Address, err = netip.ParseAddr(o.address); err != nil {
			return r, fmt.Errorf("address: %w", err)
		}
		if err := allowed(r.Address, o.private); err != nil {
			return r, err
		}
		probe.Address = r.Address
	}
	return r, probe.Validate()
}

// publish puts the record into the DNS, looking for an address if it has none. That the address is free is a condition of the
// update itself, so that two who create at the same time get different ones.
func (o *createOptions) publish(ctx context.Context, reg *registry.Registry, r *record.Record) error {
	if _, _, err := reg.Find(ctx, r.Name); !errors.Is(err, record.ErrNone) {
		if err == nil {
			err = registry.ErrNameTaken
		}
		return fmt.Errorf("group %s: %w", r.Name, err)
	}
	if r.Address.IsValid() {
		return reg.Replace(ctx, nil, r)
	}
	for range tries {
		r.Address = pick(pool(r.Private, !r.Until.IsZero()), o.random())
		if err := reg.Replace(ctx, nil, r); !errors.Is(err, registry.ErrAddressTaken) {
			return err
		}
	}
	return fmt.Errorf("%d addresses of %s tried, all taken: name one with --address", tries, pool(r.Private, !r.Until.IsZero()))
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
