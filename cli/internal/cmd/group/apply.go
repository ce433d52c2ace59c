package group

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/cli/internal/registry"
	"github.com/manycast/manycast/internal/record"
)

// inputMax bounds what apply reads, in bytes.
const inputMax = 16 << 20

// What becomes of a group.
const (
	created   = "created"
	changed   = "changed"
	unchanged = "unchanged"
)

type applyOptions struct {
	*tools
	file   string
	dryRun bool
	ttl    time.Duration
}

func newApply(t *tools) *cobra.Command {
	o := applyOptions{tools: t}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Set groups up and change them as a YAML file has them",
		Long: `Set groups up and change them as a YAML file has them, one document a group. All are checked before any is written. Groups
that are not in the file stay as they are.

A document has what create is told: name, owner, private (true or false), address, for, sessions, members. It may be what "show -o yaml" or "export"
wrote. Of a group that is there, owner, sessions and until change; "for" counts from the group's beginning. Keys and members change with "roll", the
address with "delete" and "create". A group that is not there, but has keys in the file, is published with these: their private halves are with its members.`,
		Example: `  manycast group apply -f groups.yaml --dry-run
  manycast group show web.cast.example -o yaml | sed s/ops@/noc@/ | manycast group apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.file, "filename", "f", "", "the file; - is standard input")
	flags.BoolVar(&o.dryRun, "dry-run", false, "check and say what would change, but change nothing")
	flags.DurationVar(&o.ttl, "ttl", defaultTTL, "how long routers may keep the records of new groups")
	_ = cmd.MarkFlagRequired("filename") // the flag is there
	return cmd
}

// step is what has to be done for one group.
type step struct {
	spec   spec
	result string
	reg    *registry.Registry
	prev   record.Record    // changed, unchanged
	next   record.Record    // created: the address may be still to be found
	to     *keybus.Handover // created with a key pair of its own
}

func (o applyOptions) run(ctx context.Context) error {
	data, name, err := o.ReadInput(o.file, inputMax)
	if err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	specs, err := o.parse(data, createOptions{tools: o.tools, ttl: o.ttl, random: rand.Uint32})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var steps []*step
	defer func() {
		for _, s := range steps {
			if s.to != nil {
				s.to.Close()
			}
		}
	}()
	for _, sp := range specs {
		s, err := o.plan(ctx, sp)
		if err != nil {
			return fmt.Errorf("group %s: %w", sp.record.Name, err)
		}
		steps = append(steps, s)
	}
	var done []*step
	for _, s := range steps {
		if !o.dryRun {
			if err = s.do(ctx); err != nil {
				err = fmt.Errorf("group %s: %w", s.next.Name, err)
				break
			}
		}
		done = append(done, s)
	}
	if err != nil && len(done) == 0 {
		return err
	}
	return errors.Join(o.printSteps(done), err)
}

// plan compares a document with what is there, and checks that it can be done.
func (o applyOptions) plan(ctx context.Context, sp spec) (*step, error) {
	reg, err := o.flags.Open(o.ttl, o.Now)
	if err != nil {
		return nil, err
	}
	prev, ttl, err := reg.Find(ctx, sp.record.Name)
	if errors.Is(err, record.ErrNone) {
		return o.planNew(ctx, reg, sp)
	}
	if err != nil {
		return nil, err
	}
	reg.TTL = ttl
	s := &step{spec: sp, result: changed, reg: reg, prev: prev, next: prev}
	if err := sp.fits(prev); err != nil {
		return nil, err
	}
	s.next.Owner, s.next.Sessions = sp.record.Owner, sp.record.Sessions
	if sp.create.lasting == 0 {
		s.next.Until = sp.record.Until
	}
	if s.next.Equal(prev) {
		s.result = unchanged
	}
	return s, o.checkMembers(ctx, sp, prev)
}

func (o applyOptions) planNew(ctx context.Context, reg *registry.Registry, sp spec) (*step, error) {
	s := &step{spec: sp, result: created, reg: reg, next: sp.record}
	if sp.record.Address.IsValid() {
		other, _, err := reg.FindAddress(ctx, sp.record.Address)
		if err == nil {
			return nil, fmt.Errorf("address %s is %s's", sp.record.Address, other.Name)
		}
		if !errors.Is(err, record.ErrNone) {
			return nil, err
		}
	}
	to := sp.create.recipients
	if len(sp.record.Keys) > 0 {
		if !to.None() {
			return nil, errors.New("it is not there, and its private keys are not here: leave out members to publish it with these keys, or keys to make a new one")
		}
		return s, nil
	}
	if sp.record.Private && to.None() {
		return nil, errors.New("nobody would have the private key: members is missing")
	}
	var err error
	s.to, err = to.Resolve(ctx, o.open)
	return s, err
}

// fits says what of a group that is there apply cannot change.
func (sp spec) fits(prev record.Record) error {
	r := sp.record
	if r.Address.IsValid() && r.Address != prev.Address {
		return fmt.Errorf("its address is %s, not %s: that does not change; delete it and apply again", prev.Address, r.Address)
	}
	if r.Private != prev.Private {
		return errors.New("private and public do not change; delete it and apply again")
	}
	if r.Until.IsZero() != prev.Until.IsZero() {
		return errors.New("permanent and temporary (for, until) have addresses of their own and do not change; delete it and apply again")
	}
	if len(r.Keys) > 0 && !sameKeys(r.Keys, prev.Keys) {
		return fmt.Errorf("it has other keys: leave them out; a new one is made by: manycast group roll %s", prev.Name)
	}
	return nil
}

// checkMembers looks whether all members of the document have the group's key. Nobody here could give it to them.
func (o applyOptions) checkMembers(ctx context.Context, sp spec, prev record.Record) error {
	members := sp.create.recipients.Members
	if len(members) == 0 {
		return nil
	}
	b, err := o.open(ctx)
	if err != nil {
		return fmt.Errorf("keys are handed over by the bus: %w", err)
	}
	defer b.Close()
	have, err := b.Holders(ctx, prev.Address)
	if err != nil {
		return err
	}
	for _, m := range members {
		if !slices.Contains(have, m) {
			return fmt.Errorf("%s was not handed its key, and only members have it: manycast group roll %s --member %s makes a new one for all of them",
				m, prev.Name, strings.Join(members, ","))
		}
	}
	for _, m := range have {
		if !slices.Contains(members, m) {
			fmt.Fprintf(o.Err, "warning: group %s: %s has its key, too, but is no member in the file\n", prev.Name, m)
		}
	}
	return nil
}

func (s *step) do(ctx context.Context) error {
	switch {
	case s.result == unchanged:
		return nil
	case s.result == changed:
		return s.reg.Replace(ctx, &s.prev, &s.next)
	case len(s.next.Keys) > 0:
		return s.reg.Replace(ctx, nil, &s.next)
	}
	return s.spec.create.setUp(ctx, s.reg, &s.next, s.to)
}

func (o applyOptions) printSteps(steps []*step) error {
	type row struct {
		Name    string `json:"name"`
		Address string `json:"address"` // empty: one that is free, found when the group is made
		Result  string `json:"result"`
	}
	rows := []row{}
	table := cmdutil.Table{Header: []string{"NAME", "ADDRESS", "RESULT"}}
	for _, s := range steps {
		r := row{Name: s.next.Name, Result: s.result}
		shown := "a free one"
		if s.next.Address.IsValid() {
			r.Address = s.next.Address.String()
			shown = r.Address
		}
		rows = append(rows, r)
		table.Rows = append(table.Rows, []string{r.Name, shown, r.Result})
	}
	return o.Print(rows, table)
}
