package key

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/internal/keyfile"
)

func newShow(f *cmdutil.Factory, open keybus.OpenFunc) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME|FILE",
		Short: "Show the public half of a member's key or of a key file",
		Long:  "Show the public half of a key: of a member that is registered on the bus, or of the file of a member's key, a group's key or an identity. Private keys are never shown.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err == nil {
				return showFile(f, args[0])
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			b, err := open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			public, err := b.Lookup(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(f, member{args[0], public.String(), "", true})
		},
	}
}

func show(f *cmdutil.Factory, m member) error {
	table := cmdutil.Table{Header: []string{"MEMBER", "PUBLIC KEY", "FILE"}, Rows: [][]string{{m.Name, m.Public, m.File}}}
	return f.Print(m, table)
}

func showFile(f *cmdutil.Factory, path string) error {
	m, err := keyfile.ReadMember(path)
	if err == nil {
		return f.Print(map[string]string{"name": m.Name, "public": m.Public().String(), "file": path},
			cmdutil.Table{Header: []string{"MEMBER", "PUBLIC KEY", "FILE"}, Rows: [][]string{{m.Name, m.Public().String(), path}}})
	}
	id, idErr := keyfile.ReadIdentity(path)
	if idErr == nil {
		return showIdentity(f, id, path)
	}
	g, groupErr := keyfile.ReadGroup(path)
	if groupErr != nil {
		return fmt.Errorf("neither a member's key, nor an identity, nor a group's key: %w; %w; %w", err, idErr, groupErr)
	}
	type group struct {
		Name      string     `json:"name"`
		Address   string     `json:"address"`
		Key       string     `json:"key"`
		NotBefore *time.Time `json:"not_before,omitempty"`
		File      string     `json:"file"`
	}
	out := group{Name: g.Name, Address: g.Address.String(), Key: g.Public().String(), File: path}
	since := "-"
	if !g.NotBefore.IsZero() {
		out.NotBefore, since = &g.NotBefore, g.NotBefore.Format(time.RFC3339)
	}
	return f.Print(out, cmdutil.Table{Header: []string{"GROUP", "ADDRESS", "PUBLIC KEY", "NOT BEFORE", "FILE"},
		Rows: [][]string{{g.Name, out.Address, out.Key, since, path}}})
}
