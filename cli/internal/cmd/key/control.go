package key

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/keyfile"
)

// clocksDiffer is how much earlier than now a certificate becomes valid: members' clocks may be behind this one.
const clocksDiffer = 5 * time.Minute

var roles = map[string]control.Role{"server": control.Server, "router": control.Router, "director": control.Director}

func newCreateAuthority(f *cmdutil.Factory) *cobra.Command {
	var file string
	force := false
	cmd := &cobra.Command{
		Use:   "authority",
		Short: "Make the key that certifies members of control channels",
		Long: `Make the key that certifies members of control channels. The private key stays with the operator, away from members;
each member needs the public half, which is written beside it (FILE.pub).`,
		Example: "  manycast key create authority --out authority.key",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a, err := identity.NewAuthority()
			if err != nil {
				return err
			}
			if err := keyfile.WriteAuthority(file, a, force); err != nil {
				return fmt.Errorf("%w (--force, or another file with --out)", err)
			}
			type made struct {
				File   string `json:"file"`
				Public string `json:"public"`
			}
			out := made{file, file + ".pub"}
			return f.Print(out, cmdutil.Table{Header: []string{"FILE", "PUBLIC"}, Rows: [][]string{{out.File, out.Public}}})
		},
	}
	cmd.Flags().StringVar(&file, "out", "", "file for the private key")
	cmd.Flags().BoolVar(&force, "force", false, "replace an authority that is there: its members' certificates are worth nothing then")
	require(cmd, "out")
	return cmd
}

// identityFlags are what `key create identity` is told.
type identityFlags struct {
	role, address, authority, out string
	leader, force                 bool
	valid                         time.Duration
}

func newCreateIdentity(f *cmdutil.Factory) *cobra.Command {
	var o identityFlags
	cmd := &cobra.Command{
		Use:   "identity NAME",
		Short: "Make a member's identity on control channels",
		Long: `Make a member's identity: a key pair and the authority's certificate of its name, role and address, in a file that only its owner may
read. NAME is the daemon's own name; ADDRESS is what its frames come from. Only leaders announce and commit reallocations: directors, and
agents where there are none.`,
		Example: `  manycast key create identity s1 --role server --address 10.0.1.11 --authority authority.key --out s1.identity
  manycast key create identity d1 --role director --leader --address 10.0.0.2 --authority authority.key --out d1.identity`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return createIdentity(f, args[0], o) },
	}
	cmd.Flags().StringVar(&o.role, "role", "", "server, router or director")
	cmd.Flags().StringVar(&o.address, "address", "", "the member's IPv4 address")
	cmd.Flags().StringVar(&o.authority, "authority", "", "the authority's private key")
	cmd.Flags().StringVar(&o.out, "out", "", "file for the identity")
	cmd.Flags().DurationVar(&o.valid, "valid", 365*24*time.Hour, "how long the certificate is good")
	cmd.Flags().BoolVar(&o.leader, "leader", false, "it may announce and commit reallocations")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace an identity that is there")
	require(cmd, "role", "address", "authority", "out")
	return cmd
}

func createIdentity(f *cmdutil.Factory, name string, o identityFlags) error {
	role, ok := roles[o.role]
	if !ok {
		return fmt.Errorf("role %.40q: want server, router or director", o.role)
	}
	address, err := netip.ParseAddr(o.address)
	if err != nil {
		return fmt.Errorf("address %.60q: want the member's IPv4 address", o.address)
	}
	if o.valid <= 0 {
		return errors.New("--valid: want more than 0")
	}
	a, err := keyfile.ReadAuthority(o.authority)
	if err != nil {
		return err
	}
	now := f.Now()
	id, err := identity.New(a, identity.Certificate{
		Name: name, Role: role, Leader: o.leader, Address: address, NotBefore: now.Add(-clocksDiffer), NotAfter: now.Add(o.valid),
	})
	if err != nil {
		return err
	}
	if err := keyfile.WriteIdentity(o.out, id, o.force); err != nil {
		return fmt.Errorf("%w (--force, or another file with --out)", err)
	}
	return showIdentity(f, id, o.out)
}

func showIdentity(f *cmdutil.Factory, id identity.Identity, file string) error {
	type made struct {
		Name     string    `json:"name"`
		Role     string    `json:"role"`
		Leader   bool      `json:"leader"`
		Address  string    `json:"address"`
		ID       string    `json:"id"`
		NotAfter time.Time `json:"not_after"`
		File     string    `json:"file"`
	}
	out := made{id.Name, roleName(id.Role), id.Leader, id.Address.String(), id.ID().String(), id.NotAfter, file}
	role := out.Role
	if id.Leader {
		role += ", leader"
	}
	return f.Print(out, cmdutil.Table{
		Header: []string{"MEMBER", "ROLE", "ADDRESS", "ID", "NOT AFTER", "FILE"},
		Rows:   [][]string{{out.Name, role, out.Address, out.ID, out.NotAfter.Format(time.RFC3339), file}},
	})
}

func roleName(r control.Role) string {
	for name, role := range roles {
		if role == r {
			return name
		}
	}
	return fmt.Sprintf("role %d", r)
}

// require marks flags without which the command makes no sense.
func require(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag that the command does not have
		}
	}
}
