// Package key is `manycast key`.
package key

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmd/keyservice"
	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
)

// New returns `manycast key`.
func New(f *cmdutil.Factory) *cobra.Command {
	return NewWith(f, func(ctx context.Context) (keybus.Buckets, error) { return keybus.Open(ctx, f) })
}

// NewWith is New with other buckets.
func NewWith(f *cmdutil.Factory, open keybus.OpenFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, register and show keys",
		Long: `Keys of members, of DNS clients, of control channels and of services.

A member is a server (or a person) that group private keys are handed over to: it has a key pair of its own, its public half is
registered on the bus, and "manycast group create --member NAME" seals the group's private key to it.`,
	}
	create := &cobra.Command{Use: "create", Short: "Make a key"}
	create.AddCommand(newCreateMember(f, open), newCreateTSIG(f), newCreateAuthority(f), newCreateIdentity(f))
	cmd.AddCommand(create, newRegister(f, open), newList(f, open), newShow(f, open), keyservice.New(f, open))
	return cmd
}
