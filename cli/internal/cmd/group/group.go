// Package group is `manycast group`: multicast groups, from nothing to usable (Fig 8).
package group

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/cli/internal/registry"
	"github.com/manycast/manycast/internal/record"
)

// tools are what the verbs work with.
type tools struct {
	*cmdutil.Factory
	flags registry.Flags
	open  keybus.OpenFunc
}

// New returns `manycast group`.
func New(f *cmdutil.Factory) *cobra.Command {
	return newCommand(f, func(ctx context.Context) (keybus.Buckets, error) { return keybus.Open(ctx, f) })
}

func newCommand(f *cmdutil.Factory, open keybus.OpenFunc) *cobra.Command {
	t := &tools{Factory: f, open: open}
	cmd := &cobra.Command{
		Use:   "group",
		Short: "Set up and look after multicast groups",
		Long: `Multicast groups and their records in the key-bearing DNS (dnsd).

A group's record has its name, address, owner, public keys, public/private flag and sessions. Routers let a member join a private group only
with a join that a key of that record verifies.`,
	}
	t.flags.Add(cmd.PersistentFlags())
	cmd.AddCommand(newCreate(t), newApply(t), newList(t), newShow(t), newExport(t), newRoll(t), newDelete(t))
	return cmd
}

// find gets the record of a name or an address, and a registry that keeps its TTL.
func (t *tools) find(ctx context.Context, what string) (*registry.Registry, record.Record, error) {
	reg, err := t.flags.Open(defaultTTL, t.Now)
	if err != nil {
		return nil, record.Record{}, err
	}
	var r record.Record
	if a, bad := netip.ParseAddr(what); bad == nil {
		r, reg.TTL, err = reg.FindAddress(ctx, a)
	} else {
		r, reg.TTL, err = reg.Find(ctx, fullName(what))
	}
	if err != nil {
		return nil, record.Record{}, fmt.Errorf("group %s: %w", what, err)
	}
	return reg, r, nil
}

func fullName(name string) string { return dns.CanonicalName(name) }

// view is a record in JSON and YAML.
type view struct {
	Name     string     `json:"name"`
	Address  string     `json:"address"`
	Owner    string     `json:"owner"`
	Flag     string     `json:"flag"`
	Keys     []keyView  `json:"keys"`
	Sessions []string   `json:"sessions"`
	Until    *time.Time `json:"until"`
	Members  []string   `json:"members,omitempty"` // to whom the private key was handed over just now
}

type keyView struct {
	ID        string `json:"id"`
	Algorithm string `json:"algorithm"`
	Public    string `json:"public"`
}

func newView(r record.Record) view {
	v := view{Name: r.Name, Address: r.Address.String(), Owner: r.Owner, Flag: "public", Keys: []keyView{}, Sessions: []string{}}
	if r.Private {
		v.Flag = "private"
	}
	for _, k := range r.Keys {
		f := strings.Fields(k.String())
		v.Keys = append(v.Keys, keyView{f[0], f[1], f[2]})
	}
	for _, s := range r.Sessions {
		v.Sessions = append(v.Sessions, s.String())
	}
	if !r.Until.IsZero() {
		v.Until = &r.Until
	}
	return v
}

func (v view) until() string {
	if v.Until == nil {
		return "permanent"
	}
	return v.Until.Format(time.RFC3339)
}

func (v view) sessions() string {
	if len(v.Sessions) == 0 {
		return "any time"
	}
	return strings.Join(v.Sessions, ", ")
}

// details is one record as a table of two columns.
func (v view) details() cmdutil.Table {
	table := cmdutil.Table{Header: []string{"NAME", v.Name}, Rows: [][]string{
		{"ADDRESS", v.Address}, {"OWNER", v.Owner}, {"FLAG", v.Flag}, {"SESSIONS", v.sessions()}, {"UNTIL", v.until()},
	}}
	for _, k := range v.Keys {
		table.Rows = append(table.Rows, []string{"KEY", k.ID + " " + k.Algorithm + " " + k.Public})
	}
	if len(v.Members) > 0 {
		table.Rows = append(table.Rows, []string{"HANDED TO", strings.Join(v.Members, ", ")})
	}
	return table
}
