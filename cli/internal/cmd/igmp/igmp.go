// Package igmp is `manycast igmp`: what multicast routers know and refuse.
package igmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

// gather is how long answers of all routers are collected.
const gather = 500 * time.Millisecond

// statusMax bounds what a status socket may say, in bytes.
const statusMax = 64 << 20

// options say whom to ask: a router by its name, all routers, or the one behind a socket on this machine.
type options struct {
	factory *cmdutil.Factory
	socket  string
	router  string
}

// New returns `manycast igmp`.
func New(f *cmdutil.Factory) *cobra.Command {
	o := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "igmp",
		Short: "Show the multicast routers' groups, joins and refusals",
		Long: `Show the multicast routers' groups, joins and refusals.

Routers are asked over the bus: one by its name, or all. Without a bus, --socket asks the igmpd of this machine.`,
	}
	cmd.PersistentFlags().StringVar(&o.socket, "socket", "", "ask the igmpd behind this status socket, <state_dir>/status.sock, not the bus")
	cmd.AddCommand(newGroups(o), newJoins(o), newRefusals(o))
	return cmd
}

// verb makes a command that shows something of each router.
func (o *options) verb(use, short string, show func([]*igmpdv1.Status) (any, cmdutil.Table)) *cobra.Command {
	return &cobra.Command{
		Use:   use + " [ROUTER]",
		Short: short,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.router = args[0]
			}
			all, err := o.ask(cmd.Context())
			if err != nil {
				return err
			}
			value, table := show(all)
			return o.factory.Print(value, table)
		},
	}
}

func (o *options) ask(ctx context.Context) ([]*igmpdv1.Status, error) {
	if o.socket != "" {
		st, err := askSocket(o.socket, o.factory.Timeout)
		if err != nil {
			return nil, err
		}
		if o.router != "" && o.router != st.Router {
			return nil, fmt.Errorf("the igmpd behind %s is %s, not %s", o.socket, st.Router, o.router)
		}
		return []*igmpdv1.Status{st}, nil
	}
	c, err := o.factory.Bus(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w (or ask the igmpd of this machine with --socket)", err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, o.factory.Timeout)
	defer cancel()
	if o.router != "" {
		return askRouter(ctx, c, o.router)
	}
	return askAll(ctx, c)
}

func askSocket(path string, timeout time.Duration) (*igmpdv1.Status, error) {
	c, err := net.DialTimeout("unix", path, timeout)
	if err != nil {
		return nil, fmt.Errorf("igmpd does not answer: %w (is it running here, and is %s its status socket?)", err, path)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(c, statusMax))
	if err != nil {
		return nil, fmt.Errorf("status from %s: %w", path, err)
	}
	st, err := decodeStatus(data)
	if err != nil {
		return nil, fmt.Errorf("status from %s: %w", path, err)
	}
	return st, nil
}

// decodeStatus reads what a status socket says.
func decodeStatus(data []byte) (*igmpdv1.Status, error) {
	st := &igmpdv1.Status{}
	if err := json.Unmarshal(data, st); err != nil {
		return nil, err
	}
	if slices.Contains(st.Groups, nil) || slices.Contains(st.Joins, nil) || slices.Contains(st.LastRefusals, nil) {
		return nil, errors.New("an entry is null")
	}
	return st, nil
}

func askRouter(ctx context.Context, c *bus.Conn, name string) ([]*igmpdv1.Status, error) {
	st := &igmpdv1.Status{}
	subject := "igmpd." + strings.ReplaceAll(name, ".", "-") + ".status"
	err := c.Request(ctx, subject, &igmpdv1.StatusRequest{}, st)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, fmt.Errorf("router %s is not on the bus: leave the name out to see who is", name)
	}
	return []*igmpdv1.Status{st}, err
}

func askAll(ctx context.Context, c *bus.Conn) ([]*igmpdv1.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, gather)
	defer cancel()
	var all []*igmpdv1.Status
	var failed error
	err := c.RequestMany(ctx, "igmpd.status", &igmpdv1.StatusRequest{}, 0, func(m bus.Msg) {
		st := &igmpdv1.Status{}
		if err := proto.Unmarshal(m.Data, st); err != nil {
			failed = err
			return
		}
		all = append(all, st)
	})
	if errors.Is(err, bus.ErrNotFound) || err == nil && len(all) == 0 {
		return nil, errors.New("no router is on the bus: set bus.urls in igmpd.toml, or ask the igmpd of this machine with --socket")
	}
	slices.SortFunc(all, func(a, b *igmpdv1.Status) int { return strings.Compare(a.Router, b.Router) })
	return all, errors.Join(err, failed)
}
