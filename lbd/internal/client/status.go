package client

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
)

// answerTimeout is how long who asks may take to read.
const answerTimeout = 5 * time.Second

// Status is what there is now.
func (l *Loop) Status() (clientstatus.Status, error) {
	s := clientstatus.Status{Scope: l.config.Scope, Refused: map[string]uint64{}}
	var followed movement.FollowerCounters
	ok := l.ask(func() {
		followed = l.follower.Counters()
		followed.Refused[0] = l.noRoom
		s.Services = l.services(time.Now())
	})
	if !ok {
		return s, errors.New("lbd client ends")
	}
	s.Followed = followed.Followed
	passed, err := l.config.Plane.Counters()
	if err != nil {
		return s, err
	}
	s.Refused = refusals(followed.Refused, passed)
	all, err := l.config.Plane.Connections()
	if err != nil {
		return s, err
	}
	s.Connections = l.connections(all)
	return s, nil
}

func (l *Loop) services(now time.Time) []clientstatus.Service {
	all := make([]clientstatus.Service, 0, len(l.config.Services))
	for _, s := range l.config.Services {
		known := l.known[s.VIP.Addr()]
		shown := clientstatus.Service{Name: s.Name, VIP: s.VIP, Published: l.published(now, s.VIP.Addr())}
		if known.Until.IsZero() || now.Before(known.Until) {
			shown.Keys = len(known.Keys)
		}
		all = append(all, shown)
	}
	return all
}

func (l *Loop) connections(all []kernel.Connection) []clientstatus.Connection {
	names := map[netip.AddrPort]string{}
	for _, s := range l.config.Services {
		names[s.VIP] = s.Name
	}
	shown := make([]clientstatus.Connection, 0, len(all))
	for _, c := range all {
		shown = append(shown, clientstatus.Connection{
			User: c.User, VIP: c.VIP, Service: names[c.VIP], Tag: c.Tag, Cookie: hex.EncodeToString(c.Cookie[:4]),
			Destination: c.Destination, Moves: c.Moves, Sequence: c.Sequence,
		})
	}
	slices.SortFunc(shown, func(a, b clientstatus.Connection) int { return cmp.Or(a.User.Compare(b.User), a.VIP.Compare(b.VIP)) })
	return shown
}

// refusals are those of the programs and of the follower together, by reason.
func refusals(followed map[movement.Reason]uint64, n kernel.ClientCounters) map[string]uint64 {
	all := map[string]uint64{}
	add := func(why string, n uint64) {
		if n > 0 {
			all[why] += n
		}
	}
	for why, n := range followed {
		if why == 0 {
			add(noRoom, n)
		} else {
			add(why.String(), n)
		}
	}
	add(movement.Malformed.String(), n.ChangeMalformed)
	add(movement.UnknownConnection.String(), n.ChangeUnknown)
	add(movement.WrongTag.String(), n.ChangeTag)
	add(movement.WrongCookie.String(), n.ChangeCookie)
	add(movement.Stale.String(), n.ChangeOld)
	add("lost", n.ChangeLost)
	return all
}

// ListenStatus makes the task that tells whoever connects to the socket, which is 0600. It takes connections when ListenStatus returns.
func ListenStatus(path string, l *Loop) (daemon.Task, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	s, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("status socket: %w", err), s.Close())
	}
	return daemon.Func("status socket", func(ctx context.Context) error { return l.serve(ctx, s) }), nil
}

// serve tells one after the other.
func (l *Loop) serve(ctx context.Context, s net.Listener) error {
	defer context.AfterFunc(ctx, func() { s.Close() })()
	for {
		c, err := s.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if err := l.tell(c); err != nil {
			l.config.Log.Debug("status not told", "err", err)
		}
	}
}

func (l *Loop) tell(c net.Conn) error {
	defer c.Close()
	s, err := l.Status()
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	return json.NewEncoder(c).Encode(s)
}
