package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/lab/app"
	"github.com/manycast/manycast/internal/lab/intruder"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// The hidden commands are the programs that a lab runs in its nodes.

func newApp(f *cmdutil.Factory) *cobra.Command {
	var name, listen string
	cmd := &cobra.Command{
		Use: "app", Hidden: true, Short: "Serve HTTP and UDP echo that say the server's name", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.Logger("info", f.Err)
			if err != nil {
				return err
			}
			a, err := app.Listen(cmd.Context(), name, listen)
			if err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), log, a)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the server's name")
	cmd.Flags().StringVar(&listen, "listen", "", "address:port")
	return cmd
}

func newClient(f *cmdutil.Factory) *cobra.Command {
	load := traffic.Load{ServerHeader: app.ServerHeader}
	var users []string
	cmd := &cobra.Command{
		Use: "client", Hidden: true, Short: "Be many users; events go to the output, one JSON object a line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, text := range users {
				user, err := netip.ParseAddr(text)
				if err != nil {
					return fmt.Errorf("--user: %w", err)
				}
				load.Users = append(load.Users, user)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return load.Run(ctx, f.Out)
		},
	}
	cmd.Flags().StringSliceVar(&users, "user", nil, "addresses of the users")
	cmd.Flags().StringVar(&load.URL, "url", "", "what they get")
	cmd.Flags().DurationVar(&load.Every, "every", 300*time.Millisecond, "time between a user's requests of one kind")
	return cmd
}

func newIntruder(*cmdutil.Factory) *cobra.Command {
	var kind, ifname, group, requester, key, packet string
	cmd := &cobra.Command{
		Use: "intruder", Hidden: true, Short: "Send a join that no router may admit", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind == "capture" {
				return capture(cmd.Context(), ifname, group, packet)
			}
			if intruder.Kind(kind) == intruder.Replay {
				data, err := os.ReadFile(packet)
				if err != nil {
					return err
				}
				return intruder.Send(ifname, data)
			}
			a := intruder.Attack{Kind: intruder.Kind(kind)}
			var err error
			if a.Group, err = netip.ParseAddr(group); err != nil {
				return err
			}
			if a.Requester, err = netip.ParsePrefix(requester); err != nil {
				return err
			}
			if key != "" {
				k, err := keyfile.ReadGroup(key)
				if err != nil {
					return err
				}
				a.Key = &k
			}
			data, err := a.Packet(time.Now())
			if err != nil {
				return err
			}
			return intruder.Send(ifname, data)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&kind, "kind", "", "unsigned, wrong-key, wrong-link, replay, or capture")
	flags.StringVar(&ifname, "interface", "", "where it is sent or captured")
	flags.StringVar(&group, "group", "", "the group")
	flags.StringVar(&requester, "requester", "", "whose join it is said to be, with prefix length")
	flags.StringVar(&key, "key", "", "file of the group's private key")
	flags.StringVar(&packet, "packet", "", "file of a captured join")
	return cmd
}

func capture(ctx context.Context, ifname, group, file string) error {
	g, err := netip.ParseAddr(group)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, intruder.CaptureWithin)
	defer cancel()
	data, err := intruder.Capture(ctx, ifname, g)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}
