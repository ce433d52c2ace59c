package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// firstWithin and secondWithin are what the attempts may take. A request has failed when the second one, on a fresh connection, failed,
// too. Neither is the second after which a lost SYN is sent again: a connection made just when its user gives up tells nothing.
const (
	firstWithin  = 2 * time.Second
	secondWithin = 900 * time.Millisecond
)

// Load is what the users do.
type Load struct {
	Users        []netip.Addr  // each has one connection that it keeps, and opens new ones
	URL          string        // what they get
	Every        time.Duration // between a user's requests of one kind
	Idle         time.Duration // between requests on one more connection that each keeps; 0: there is none
	ServerHeader string        // response header that names the server
	CountHeader  string        // response header that says how many answers there were on the connection; one without it says nothing

	KeptOnly      bool   // they open no new connections while the ones that they keep do
	UserHeader    string // response header that says which user the server sees; empty: it does not say it
	SessionCookie string // says how many answers a user has had, on whatever connections; the next answer sets it one higher; empty: there is none
	Via           string // what events say
}

// Run runs the load until ctx is done and writes its events to w, one JSON object a line.
func (l *Load) Run(ctx context.Context, w io.Writer) error {
	if len(l.Users) == 0 || l.Every <= 0 {
		return fmt.Errorf("load: want users and a time between requests")
	}
	out := &output{enc: json.NewEncoder(w), via: l.Via}
	group, ctx := errgroup.WithContext(ctx)
	for _, user := range l.Users {
		begin := func(keep bool, every time.Duration) {
			c := &client{load: l, user: user, every: every, out: out, kept: transport(out, user, true), fresh: transport(out, user, false)}
			c.session = session{user: user, cookie: l.SessionCookie, header: l.UserHeader}
			group.Go(func() error { return c.run(ctx, keep) })
		}
		begin(true, l.Every)
		if !l.KeptOnly {
			begin(false, l.Every)
		}
		if l.Idle > 0 {
			begin(true, l.Idle)
		}
	}
	return group.Wait()
}

// client is one user's requests of one kind.
type client struct {
	load        *Load
	user        netip.Addr
	every       time.Duration
	out         *output
	kept, fresh *http.Transport
	session     session
}

func (c *client) run(ctx context.Context, keep bool) error {
	defer c.kept.CloseIdleConnections()
	rt := c.fresh
	if keep {
		rt = c.kept
	}
	// Users do not move in step.
	timer := time.NewTimer(rand.N(min(c.load.Every, c.every)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		begin := time.Now()
		c.request(rt)
		if err := c.out.err(); err != nil {
			return err // nobody reads
		}
		timer.Reset(max(0, c.every-time.Since(begin)))
	}
}

// request asks once, and once more on a fresh connection when that fails. It is not cut short when the load ends.
func (c *client) request(rt *http.Transport) {
	e := Event{Kind: Request, User: c.user, Start: time.Now()}
	a, err := c.attempt(rt, firstWithin)
	if err != nil {
		e.Err = err.Error()
		rt.CloseIdleConnections()
		e.Retry = time.Now()
		if a, err = c.attempt(c.fresh, secondWithin); err != nil {
			e.Err += "; again: " + err.Error()
		}
	}
	e.End, e.Server, e.OK, e.Opened = time.Now(), a.server, err == nil, a.opened
	c.out.emit(e)
}

// answer is who answered, and when the connection was opened, where it is kept.
type answer struct {
	server string
	opened time.Time
}

// attempt asks once.
func (c *client) attempt(rt *http.Transport, within time.Duration) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var mu sync.Mutex
	var on *conn // the transport may go through several
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		mu.Lock()
		defer mu.Unlock()
		if on != nil {
			on.release("", false)
		}
		if got, ok := info.Conn.(*conn); ok {
			on = got
			on.take()
		}
	}}
	counted := func(said string) error {
		mu.Lock()
		defer mu.Unlock()
		if on == nil {
			return nil
		}
		return on.count(said)
	}
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		if on != nil {
			on.release(a.server, err == nil)
			a.opened = on.since()
		}
	}()
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, c.load.URL, nil)
	if err != nil {
		return answer{}, err
	}
	c.session.ask(req)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return answer{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("status %s", resp.Status)
	}
	if err := c.session.heard(resp); err != nil {
		return answer{}, err
	}
	return answer{server: resp.Header.Get(c.load.ServerHeader)}, counted(resp.Header.Get(c.load.CountHeader))
}

func transport(out *output, user netip.Addr, keep bool) *http.Transport {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(user, 0)), Timeout: firstWithin, KeepAlive: -1}
	return &http.Transport{
		DisableKeepAlives: !keep, MaxIdleConnsPerHost: 1, DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := d.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			now := time.Now()
			tracked := &conn{Conn: c, user: user, id: out.conns.Add(1), opened: now, emit: out.emit, kept: keep}
			out.emit(Event{Kind: Open, User: user, Start: now, End: now, Conn: tracked.id})
			return tracked, nil
		},
	}
}

// output writes events, one writer at a time.
type output struct {
	via   string
	conns atomic.Int64
	mu    sync.Mutex
	enc   *json.Encoder
	bad   error
}

func (s *output) emit(e Event) {
	e.Via = s.via
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enc.Encode(&e); err != nil && s.bad == nil {
		s.bad = fmt.Errorf("write events: %w", err)
	}
}

func (s *output) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bad
}
