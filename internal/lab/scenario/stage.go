package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/app"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// stage is what scenarios have in common: a lab that is up, users at work in it, and what is found.
type stage struct {
	o       Options
	store   *lab.Store
	lab     *lab.Lab
	vars    map[string]string
	servers []string
	users   []netip.Addr
	checks  []report.Check
	began   time.Time
	web     *follower // the service that the users work with

	starvation *starvation // nil before the lab is up

	mu    sync.Mutex
	tally report.Tally
}

// prepare brings the topology of a scenario up.
func (s *stage) prepare(ctx context.Context, topology string, set map[string]string) error {
	source, err := lab.BuiltIn(topology)
	if err != nil {
		return err
	}
	s.o.Progress.Phase("up")
	if s.lab, err = s.store.Up(ctx, source, s.o.Name, set); err != nil {
		return err
	}
	s.vars = s.lab.Topology().Vars
	s.web = newFollower(s.vars["service"], s.o.Progress.Note)
	s.starvation = watchStarvation(s.lab)
	return nil
}

// down takes the lab down and looks whether anything is left.
func (s *stage) down(ctx context.Context) error {
	s.starvation.end()
	s.o.Progress.Phase("down")
	removed, err := s.store.Down(context.WithoutCancel(ctx), s.lab.Name())
	s.o.Progress.Note("%s", removed)
	s.checkLeftovers(err)
	return err
}

// nodeUsers has the users of most scenarios.
const nodeUsers = "users"

// admitUsers takes as many of the topology's users as were asked for.
func (s *stage) admitUsers() error { return s.admit(nodeUsers, s.o.Clients) }

// admit takes so many of a node's users.
func (s *stage) admit(node string, n int) error {
	addresses := s.lab.Topology().Node(node).Addresses["eth0"]
	if n < 1 || n > len(addresses) {
		return fmt.Errorf("clients at %s: %d: want 1 to %d", node, n, len(addresses))
	}
	for _, a := range addresses[:n] {
		s.users = append(s.users, a.Addr())
	}
	return nil
}

// usersOf are those admitted of a node.
func (s *stage) usersOf(node string) (users []netip.Addr) {
	for _, a := range s.lab.Topology().Node(node).Addresses["eth0"] {
		if slices.Contains(s.users, a.Addr()) {
			users = append(users, a.Addr())
		}
	}
	return users
}

// home is the node of a user.
func (s *stage) home(user netip.Addr) string {
	for _, n := range s.lab.Topology().Nodes {
		if slices.ContainsFunc(n.Addresses["eth0"], func(a netip.Prefix) bool { return a.Addr() == user }) {
			return n.Name
		}
	}
	return ""
}

// waitServed waits until every user is answered by its owner.
func (s *stage) waitServed(ctx context.Context) error {
	deadline := time.Now().Add(15 * time.Second)
	for _, u := range s.users {
		for {
			server, err := s.get(ctx, u)
			want := s.web.owner(u)
			if err == nil && server == want {
				break
			}
			if time.Now().After(deadline) || ctx.Err() != nil {
				return errors.Join(fmt.Errorf("user %v is not served by %s: the last answer is of %q", u, want, server), err, ctx.Err())
			}
		}
	}
	return nil
}

// watch has a follower hear what the bus says.
func (s *stage) watch(f *follower) (*helper, error) {
	return startHelper(s.lab, "ctl", f.hear, "manycast", "lab", "watch", "--service", f.service)
}

// program runs in a node and tells what its users see.
type program struct {
	node string
	argv []string
}

// work lets the users work while what happens goes by.
func (s *stage) work(ctx context.Context, happens func(context.Context) error, programs ...program) error {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	var running []*helper
	var err error
	for _, p := range programs {
		var h *helper
		if h, err = startHelper(s.lab, p.node, s.see, p.argv...); err != nil {
			break
		}
		running = append(running, h)
	}
	if err == nil {
		err = happens(ctx)
	}
	for _, h := range running {
		err = errors.Join(err, h.stop())
	}
	return err
}

// client is the program of a node's users who get pages, on new connections and on one that each keeps.
func (s *stage) client(node string, more ...string) program {
	return program{node, append([]string{"manycast", "lab", "client", "--url", "http://" + s.vars["vip"] + "/", "--user", s.userList(node)}, more...)}
}

// streams is the program of a node's users with streams.
func (s *stage) streams(node string) program {
	return program{node, []string{"manycast", "lab", "streams", "--to", net.JoinHostPort(s.vars["vip"], s.vars["streams"]),
		"--user", s.userList(node), "--server", strings.Join(s.servers, ",")}}
}

func (s *stage) userList(node string) string {
	var users []string
	for _, u := range s.usersOf(node) {
		users = append(users, u.String())
	}
	return strings.Join(users, ",")
}

func (s *stage) see(e traffic.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Add(e)
}

func (s *stage) member(server string) string { return s.vars["service"] + "/" + server }

func (s *stage) span(name string, start time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Spans = append(s.tally.Spans, report.Span{Name: name, Start: start, End: time.Now()})
}

// watchUntil shows the progress until then.
func (s *stage) watchUntil(ctx context.Context, end time.Time) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-tick.C:
			s.mu.Lock()
			requests, unanswered := s.tally.Count()
			s.mu.Unlock()
			s.o.Progress.Tick(time.Since(s.began), requests, unanswered)
		}
	}
}

// cli runs a command of the CLI on ctl.
func (s *stage) cli(ctx context.Context, args ...string) error {
	if out, err := s.lab.Command(ctx, "ctl", append([]string{"manycast"}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("manycast %v: %w: %s", args, err, out)
	}
	return nil
}

// tell decodes what a command of the CLI on ctl says.
func (s *stage) tell(ctx context.Context, to any, args ...string) error {
	text, err := s.lab.Command(ctx, "ctl", append(append([]string{"manycast"}, args...), "-o", "json")...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		return fmt.Errorf("manycast %v: %w", args, err)
	}
	return nil
}

// get is one request of a user.
func (s *stage) get(ctx context.Context, user netip.Addr) (server string, err error) {
	ns, err := s.lab.Namespace(s.home(user))
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	rt := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = ns.Do(func() error {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(user, 0)), Timeout: time.Second}
			c, err = d.DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.vars["vip"]+"/", nil)
	if err != nil {
		return "", err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "", err
	}
	return resp.Header.Get(app.ServerHeader), resp.Body.Close()
}

func (s *stage) check(name string, ok bool, format string, args ...any) {
	c := report.Check{Name: name, OK: ok, Detail: fmt.Sprintf(format, args...)}
	s.checks = append(s.checks, c)
	s.o.Progress.Check(c)
}

func (s *stage) checkLeftovers(downErr error) {
	left, err := s.store.Leftovers(s.lab.Name())
	err = errors.Join(downErr, err)
	detail := "nothing"
	if len(left) > 0 {
		detail = strings.Join(left, ", ")
	}
	if err != nil {
		detail += ": " + err.Error()
	}
	s.check("nothing is left behind", err == nil && len(left) == 0, "%s", detail)
}

// examples shows the first few events of a list, and whose the users were then.
func (s *stage) examples(events []traffic.Event, eras report.Timeline) string {
	var b strings.Builder
	for i, e := range events {
		if i == 3 {
			fmt.Fprintf(&b, "; and %d more", len(events)-i)
			break
		}
		fmt.Fprintf(&b, "; %v of %s at %.3f s (%s) to %.3f s %s %s %s", e.User, e.Server, e.Start.Sub(s.began).Seconds(), e.Start.UTC().Format("15:04:05.000"),
			e.End.Sub(s.began).Seconds(), e.Stream, e.How, e.Err)
		if !e.Heard.IsZero() {
			fmt.Fprintf(&b, ", last heard at %.3f s", e.Heard.Sub(s.began).Seconds())
		}
		fmt.Fprintf(&b, "; %s", eras.Tell(e.User, e.Start, e.End))
	}
	return b.String()
}

// sniff watches the management network and, with the same filter, the users' interface: a filter that saw nothing there would
// prove nothing here. The result ends both and checks.
func (s *stage) sniff(ctx context.Context, node, ifname string) (done func() error, err error) {
	filter := fmt.Sprintf("net 10.1.0.0/16 or net 239.0.0.0/8 or host %s", s.vars["vip"])
	management, err := startSniffer(ctx, s.lab, s.lab.Topology().Management.Node, lab.MgmtInterface, filter, filepath.Join(s.lab.Dir("logs"), "management.pcap"), true)
	if err != nil {
		return nil, err
	}
	users, err := startSniffer(ctx, s.lab, node, ifname, filter, os.DevNull, false)
	if err != nil {
		_, stopErr := management.stop()
		return nil, errors.Join(err, stopErr)
	}
	return func() error {
		none, err := management.stop()
		some, err2 := users.stop()
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		which := ""
		if none > 0 {
			if which, err = management.first(ctx); err != nil {
				return err
			}
		}
		s.check("no user packet on the management network", none == 0 && some > 0,
			"tcpdump: %d packets on the management network, %d by the same filter on %s%s", none, some, users.where, which)
		return nil
	}, nil
}
