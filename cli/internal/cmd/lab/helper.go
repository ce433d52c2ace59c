package lab

import (
	"context"
	"net/netip"
	"os"
	"os/signal"
	"strings"
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
	var c app.Config
	cmd := &cobra.Command{
		Use: "app", Hidden: true, Short: "Serve HTTP, UDP echo and streams that say the server's name", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.Logger("info", f.Err)
			if err != nil {
				return err
			}
			a, err := app.Listen(cmd.Context(), c)
			if err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), log, a)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Name, "name", "", "the server's name")
	flags.StringVar(&c.Listen, "listen", "", "address:port of HTTP and UDP")
	flags.StringVar(&c.Streams, "streams", "", "address:port of streams of numbered bytes (default: none)")
	flags.StringVar(&c.Agent, "agent", "", "the agent's socket, by which connections move (default: "+app.DefaultAgent+")")
	flags.Uint8Var(&c.Number, "number", 0, "the server's number in streams")
	return cmd
}

func newPlain(f *cmdutil.Factory) *cobra.Command {
	var name, listen string
	cmd := &cobra.Command{
		Use: "plain", Hidden: true, Short: "Serve HTTP as a server that knows nothing of moving connections", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.Logger("info", f.Err)
			if err != nil {
				return err
			}
			p, err := app.ListenPlain(cmd.Context(), name, listen)
			if err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), log, p)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "the server's name")
	flags.StringVar(&listen, "listen", "", "address:port")
	return cmd
}

func newClient(f *cmdutil.Factory) *cobra.Command {
	load := traffic.Load{ServerHeader: app.ServerHeader, CountHeader: app.CountHeader}
	var relayed bool
	cmd := &cobra.Command{
		Use: "client", Hidden: true, Short: "Be many users; events go to the output, one JSON object a line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			if relayed {
				load.Via, load.KeptOnly, load.UserHeader, load.SessionCookie = traffic.Relay, true, app.UserHeader, app.SessionCookie
			}
			return load.Run(ctx, f.Out)
		},
	}
	flags := cmd.Flags()
	flags.Var(&addresses{&load.Users}, "user", "addresses of the users")
	flags.StringVar(&load.URL, "url", "", "what they get")
	flags.DurationVar(&load.Every, "every", 300*time.Millisecond, "time between a user's requests of one kind")
	flags.BoolVar(&relayed, "relayed", false, "what they get is a plain server's behind a relay; they keep their connections")
	flags.DurationVar(&load.Idle, "idle", 0, "time between requests on one more connection that each user keeps (default: there is none)")
	return cmd
}

func newStreams(f *cmdutil.Factory) *cobra.Command {
	var s traffic.Streams
	cmd := &cobra.Command{
		Use: "streams", Hidden: true, Short: "Be users with streams of numbered bytes; events go to the output, one JSON object a line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return s.Run(ctx, f.Out)
		},
	}
	flags := cmd.Flags()
	flags.Var(&addresses{&s.Users}, "user", "addresses of the users")
	flags.StringVar(&s.Address, "to", "", "address:port of the streams")
	flags.StringSliceVar(&s.Servers, "server", nil, "the servers' names, in the order of their numbers")
	return cmd
}

func newFlows(f *cmdutil.Factory) *cobra.Command {
	var u traffic.Flows
	cmd := &cobra.Command{
		Use: "flows", Hidden: true, Short: "Be users with flows of UDP that last; events go to the output, one JSON object a line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return u.Run(ctx, f.Out)
		},
	}
	flags := cmd.Flags()
	flags.Var(&addresses{&u.Users}, "user", "addresses of the users")
	flags.StringVar(&u.Address, "to", "", "address:port")
	flags.DurationVar(&u.Pace, "pace", 50*time.Millisecond, "time between two datagrams of a flow")
	flags.DurationVar(&u.Age, "age", 3*time.Second, "after which one of a user's two flows is followed by another")
	return cmd
}

// addresses is a flag that takes a list of addresses.
type addresses struct{ to *[]netip.Addr }

func (a *addresses) Type() string   { return "addresses" }
func (a *addresses) String() string { return "" }

// Set implements pflag.Value.
func (a *addresses) Set(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		*a.to = append(*a.to, addr)
	}
	return nil
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
