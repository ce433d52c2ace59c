package key

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/keyfile"
)

// DefaultMemberFile is where the agent looks for its own key pair.
const DefaultMemberFile = "/var/lib/manycast/agent/member.key"

type member struct {
	Name       string `json:"name"`
	Public     string `json:"public"`
	File       string `json:"file,omitempty"`
	Registered bool   `json:"registered"`
}

func newCreateMember(f *cmdutil.Factory, open keybus.OpenFunc) *cobra.Command {
	file, force := DefaultMemberFile, false
	cmd := &cobra.Command{
		Use:   "member NAME",
		Short: "Make a member's own key pair",
		Long: `Make a member's own key pair: a file that only its owner may read, on the machine where this runs.

The public half is registered on the bus. Without --bus a bus that is not there is no error: hand the public half over by other means
(manycast group create --member-key NAME=PUBLIC), or register it later (manycast key register FILE).`,
		Example: "  manycast key create member s1\n  manycast key create member s1 --out s1.key --bus nats://10.0.0.1:4222",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := keyfile.NewMember(args[0])
			if err != nil {
				return err
			}
			if err := keyfile.WriteMember(file, m, force); err != nil {
				return fmt.Errorf("%w (--force, or another file with --out)", err)
			}
			err = register(cmd.Context(), open, m, force)
			if err != nil && (cmd.Flags().Changed("bus") || !errors.Is(err, errNoBus)) {
				return fmt.Errorf("%w; the key pair is in %s, register it with: manycast key register %s", err, file, file)
			}
			if err != nil {
				fmt.Fprintln(f.Err, "not registered:", err)
			}
			return show(f, member{m.Name, m.Public().String(), file, err == nil})
		},
	}
	cmd.Flags().StringVar(&file, "out", file, "file for the key pair")
	cmd.Flags().BoolVar(&force, "force", false, "replace a key pair and a registration that are there")
	return cmd
}

func newRegister(f *cmdutil.Factory, open keybus.OpenFunc) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "register FILE",
		Short: "Put the public half of a member's key pair on the bus",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := keyfile.ReadMember(args[0])
			if err != nil {
				return err
			}
			if err := register(cmd.Context(), open, m, force); err != nil {
				return err
			}
			return show(f, member{m.Name, m.Public().String(), args[0], true})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace another key of that member")
	return cmd
}

// errNoBus says that there is no bus to register at.
var errNoBus = errors.New("no bus")

// register never puts one key in the place of another unless it is told: whoever is registered gets the group keys.
func register(ctx context.Context, open keybus.OpenFunc, m keyfile.Member, force bool) error {
	b, err := open(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoBus, err)
	}
	defer b.Close()
	value, err := keyfile.Registration(m.Name, m.Public())
	if err != nil {
		return err
	}
	if force {
		_, err = b.Members.Put(ctx, m.Name, value)
		return err
	}
	_, err = b.Members.Create(ctx, m.Name, value)
	if !errors.Is(err, bus.ErrExists) {
		return err
	}
	if there, err := b.Lookup(ctx, m.Name); err == nil && there == m.Public() {
		return nil
	}
	return fmt.Errorf("member %s is registered with another key: is the name right? Replace it with --force", m.Name)
}

func newCreateTSIG(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "tsig FILE",
		Short:   "Make the secret of a DNS client (hmac-sha256)",
		Long:    "Make the secret of a DNS client. dnsd and the client each need the file; its name in [[tsig]] of dnsd.toml is up to you.",
		Example: "  manycast key create tsig /etc/manycast/tsig/manycast-cli",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := keyfile.WriteTSIG(args[0]); err != nil {
				return err
			}
			type made struct {
				File string `json:"file"`
			}
			return f.Print(made{args[0]}, cmdutil.Table{Header: []string{"FILE"}, Rows: [][]string{{args[0]}}})
		},
	}
}
