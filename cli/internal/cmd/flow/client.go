package flow

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/clientstatus"
)

// ofClient lists the connections of this host that can move.
func (o listOptions) ofClient(ctx context.Context) error {
	of, err := usersOf(o.query.User)
	if err != nil {
		return err
	}
	connections, err := o.askClients(ctx)
	if err != nil {
		return fmt.Errorf("%w: is lbd client running on this host, and are you root or its user?", err)
	}
	shown := []clientstatus.Connection{}
	for _, c := range connections {
		if (o.service == "" || o.service == c.Service) && of(c.User) {
			shown = append(shown, c)
		}
	}
	all := len(shown)
	if o.limit > 0 && all > o.limit {
		shown = shown[:o.limit]
	}
	if err := o.factory.Print(shown, clientTable(shown)); err != nil {
		return err
	}
	if len(shown) < all {
		fmt.Fprintf(o.factory.Err, "manycast: %d of %d connections; --limit 0 lists all\n", len(shown), all)
	}
	return nil
}

// askClients asks all there may be; an error is that of none that answers.
func (o listOptions) askClients(ctx context.Context) (all []clientstatus.Connection, err error) {
	sockets := []string{o.socket}
	if o.socket == "" {
		sockets = clientstatus.Sockets()
	}
	var failed []error
	for _, socket := range sockets {
		s, err := clientstatus.Ask(ctx, socket)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, s.Connections...)
	}
	if len(failed) == len(sockets) {
		return nil, errors.Join(failed...)
	}
	return all, nil
}

// usersOf says which users are meant: all, an address, an address and port, or a prefix.
func usersOf(text string) (func(netip.AddrPort) bool, error) {
	if text == "" {
		return func(netip.AddrPort) bool { return true }, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return func(user netip.AddrPort) bool { return user.Addr() == a }, nil
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		return func(user netip.AddrPort) bool { return user == a }, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return func(user netip.AddrPort) bool { return p.Contains(user.Addr()) }, nil
	}
	return nil, fmt.Errorf("user %q: want an address, an address and port, or a prefix", text)
}

func clientTable(all []clientstatus.Connection) cmdutil.Table {
	t := cmdutil.Table{Header: []string{"SERVICE", "USER", "VIP", "TAG", "COOKIE", "DESTINATION", "MOVES"}}
	for _, c := range all {
		t.Rows = append(t.Rows, []string{
			dash(c.Service), c.User.String(), c.VIP.String(), strconv.Itoa(int(c.Tag)), c.Cookie + "...", c.Destination.String(), strconv.Itoa(int(c.Moves)),
		})
	}
	return t
}
