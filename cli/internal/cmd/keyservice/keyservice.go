// Package keyservice is `manycast key service`: the keys by which servers of a service say that a connection goes on at another one
// (Fig 21), and where its servers are.
package keyservice

import (
	"context"
	"errors"
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

const (
	defaultTTL = time.Minute
	// clockSlack lets servers whose clocks are behind use a new service's key at once.
	clockSlack = time.Minute
)

var errNobody = errors.New("nobody would have the private key: name servers with --member or --member-key, or keep it with --key-out FILE")

// tools are what the verbs work with.
type tools struct {
	*cmdutil.Factory
	flags registry.Flags
	open  keybus.OpenFunc
}

// New returns `manycast key service`.
func New(f *cmdutil.Factory, open keybus.OpenFunc) *cobra.Command {
	t := &tools{Factory: f, open: open}
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Make, publish, roll and revoke the keys of services",
		Long: `Keys of services with dynamic TCP, one record a VIP, in the key-bearing DNS (dnsd) under the VIP's name and address.

Servers sign with the private key when they take a live connection over; users' hosts follow where a public key of the record verifies that, and
only to destinations that the record has. Private keys are sealed to members, as those of groups are.`,
	}
	t.flags.Add(cmd.PersistentFlags())
	cmd.AddCommand(newCreate(t), newPublish(t), newRoll(t), newRetire(t), newRevoke(t), newShow(t), newExport(t), newDelete(t))
	return cmd
}

// find gets the record of a VIP by its name or itself, and a registry that keeps its TTL.
func (t *tools) find(ctx context.Context, what string) (*registry.Registry, record.Record, error) {
	reg, err := t.flags.Open(defaultTTL, t.Now)
	if err != nil {
		return nil, record.Record{}, err
	}
	var r record.Record
	if a, bad := netip.ParseAddr(what); bad == nil {
		r, reg.TTL, err = reg.FindAddress(ctx, a)
	} else {
		r, reg.TTL, err = reg.Find(ctx, dns.CanonicalName(what))
	}
	if err == nil && r.Address.IsMulticast() {
		err = errors.New("it is a group's: manycast group")
	}
	if err != nil {
		return nil, record.Record{}, fmt.Errorf("key of service %s: %w", what, err)
	}
	return reg, r, nil
}

// view is a record in JSON and YAML.
type view struct {
	Name         string    `json:"name"`
	VIP          string    `json:"vip"`
	Owner        string    `json:"owner"`
	Keys         []keyView `json:"keys"` // the newest, with which servers sign or are about to, is the last
	Destinations []string  `json:"destinations"`
	TTL          uint32    `json:"ttl"`               // seconds
	Members      []string  `json:"members,omitempty"` // to whom the private key was handed over just now
}

type keyView struct {
	ID        string `json:"id"`
	Algorithm string `json:"algorithm"`
	Public    string `json:"public"`
}

func newView(r record.Record, ttl uint32) view {
	v := view{Name: r.Name, VIP: r.Address.String(), Owner: r.Owner, Keys: []keyView{}, Destinations: []string{}, TTL: ttl}
	for _, k := range r.Keys {
		f := strings.Fields(k.String())
		v.Keys = append(v.Keys, keyView{f[0], f[1], f[2]})
	}
	for _, p := range r.Destinations {
		v.Destinations = append(v.Destinations, p.String())
	}
	return v
}

// details is one record as a table of two columns.
func (v view) details() cmdutil.Table {
	destinations := strings.Join(v.Destinations, ", ")
	if destinations == "" {
		destinations = "none: connections stay where they are"
	}
	table := cmdutil.Table{Header: []string{"NAME", v.Name}, Rows: [][]string{
		{"VIP", v.VIP}, {"OWNER", v.Owner}, {"DESTINATIONS", destinations}, {"TTL", (time.Duration(v.TTL) * time.Second).String()},
	}}
	for _, k := range v.Keys {
		table.Rows = append(table.Rows, []string{"KEY", k.ID + " " + k.Algorithm + " " + k.Public})
	}
	if len(v.Members) > 0 {
		table.Rows = append(table.Rows, []string{"HANDED TO", strings.Join(v.Members, ", ")})
	}
	return table
}

func (t *tools) print(v view) error { return t.Print(v, v.details()) }

// prefixes reads --destination: a prefix, or an address.
func prefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--destination %.60q: want a prefix or an address", text)
		}
		out = append(out, p)
	}
	return out, nil
}

func seconds(ttl time.Duration) (uint32, error) {
	if ttl < time.Second || ttl > 24*time.Hour {
		return 0, fmt.Errorf("--ttl %s: want 1s to 24h", ttl)
	}
	return uint32(ttl / time.Second), nil
}
