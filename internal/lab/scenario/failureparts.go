package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/lab"
)

// leaderCutOff cuts whoever leads off the bus. It thinks that it leads until its lease has run out; meanwhile, and while another leads
// already, there are two. A drain then needs a leader who can write.
func (f *failures) leaderCutOff(which string) failure {
	const moved = "s4"
	var end lab.Endpoint
	var was epoch.Epoch
	return failure{
		what: "director that leads cut off the bus, " + which + ": two may think that they lead", lasts: dead,
		act: func(ctx context.Context) error {
			leader, err := f.web.awaitLeader(ctx, func(string) bool { return true })
			if err != nil {
				return err
			}
			end, was = lab.Endpoint{Node: leader, Interface: lab.MgmtInterface}, f.web.epoch()
			return f.lab.CutLink(end)
		},
		while: func(ctx context.Context) error {
			if err := f.cli(ctx, "server", "drain", f.member(moved)); err != nil {
				return err
			}
			if err := f.awaitServers(ctx, f.without(moved), 10*time.Second); err != nil {
				return err
			}
			leader, is := f.web.leads(), f.web.epoch()
			f.check("a leader cut off the bus, "+which, leader != end.Node && is.Term > was.Term,
				"%s led, epoch %v; %s leads, epoch %v", end.Node, was, leader, is)
			return f.calm(ctx)
		},
		mend: func(ctx context.Context) error {
			if err := f.lab.HealLink(end); err != nil {
				return err
			}
			return f.cli(ctx, "server", "undrain", f.member(moved))
		},
	}
}

// without are the other servers.
func (f *failures) without(server string) []string {
	return slices.DeleteFunc(slices.Clone(f.servers), func(s string) bool { return s == server })
}

// withoutQuorum kills two of three servers of the bus, then a server: standbys alone serve, as nobody can write an epoch, until there is a
// quorum again.
func (f *failures) withoutQuorum() []failure {
	const victim = "s1"
	var before string
	return []failure{
		{
			what: "bus: quorum lost", lasts: 2 * time.Second,
			act: func(context.Context) error {
				f.noQuorum = true
				return errors.Join(f.lab.Kill("b1", "bus"), f.lab.Kill("b2", "bus"))
			},
		},
		{
			what: "server " + victim + ": power loss without a quorum of the bus", victim: victim, lasts: 3 * time.Second, goesOn: true,
			act: func(context.Context) error {
				before = f.web.epoch().String()
				return f.lab.KillNode(victim)
			},
			while: func(ctx context.Context) error {
				if err := f.calm(ctx); err != nil {
					return err
				}
				wrong, asked := f.notServed(ctx, victim)
				after := f.web.epoch().String()
				f.check("without a quorum standbys alone serve", before == after && asked > 0 && len(wrong) == 0,
					"epoch %s before and %s after; %d users of %s asked, not served by another: %d%s", before, after, asked, victim, len(wrong), some(wrong))
				return nil
			},
		},
		{
			what: "bus: quorum regained", goesOn: true,
			act: func(ctx context.Context) error {
				group, ctx := errgroup.WithContext(ctx)
				for _, b := range []string{"b1", "b2"} {
					group.Go(func() error { return f.lab.Start(ctx, b, "bus") })
				}
				return group.Wait()
			},
			while: func(ctx context.Context) error {
				f.noQuorum = false
				if err := f.awaitServers(ctx, f.without(victim), 30*time.Second); err != nil {
					return fmt.Errorf("the leader does not tidy up: %w", err)
				}
				return f.calm(ctx)
			},
			mend: func(ctx context.Context) error { return f.serverBack(ctx, victim) },
		},
	}
}

// notServed asks for each user of a server and says who was answered by nobody else.
func (f *failures) notServed(ctx context.Context, server string) (wrong []string, asked int) {
	for _, u := range f.users {
		if f.web.owner(u) != server {
			continue
		}
		asked++
		if by, err := f.get(ctx, u); err != nil || by == server {
			wrong = append(wrong, fmt.Sprintf("%v: %q, %v", u, by, err))
		}
	}
	return wrong, asked
}

// refusedWithin is how long a user may wait to hear that nobody serves.
const refusedWithin = 100 * time.Millisecond

// allBack is how long a leader may take until all have users who came back one after the other.
const allBack = 4 * time.Second

// allServersDead: users are refused by the directors' program, at once, until there is a server again.
func (f *failures) allServersDead() []failure {
	return []failure{{
		what: "all servers: power loss", refused: true, lasts: 2 * time.Second,
		act: func(context.Context) error {
			var group errgroup.Group
			for _, s := range f.servers {
				group.Go(func() error { return f.lab.KillNode(s) })
			}
			return group.Wait()
		},
		while: f.checkRefusal,
		mend: func(ctx context.Context) error {
			group, starting := errgroup.WithContext(ctx)
			for _, s := range f.servers {
				group.Go(func() error { return f.serverBack(starting, s) })
			}
			if err := group.Wait(); err != nil {
				return err
			}
			// The last allocation, with all in it, stays until the leader has one of those who are back.
			return f.watchUntil(ctx, time.Now().Add(allBack))
		},
	}}
}

func (f *failures) checkRefusal(ctx context.Context) error {
	f.asker.Pause(true) // the directors count refused datagrams, too
	defer f.asker.Pause(false)
	if err := f.watchUntil(ctx, time.Now().Add(answering)); err != nil {
		return err
	}
	before, err := f.refusals(ctx)
	if err != nil {
		return err
	}
	var wrong []string
	var longest time.Duration
	for _, u := range f.users {
		began := time.Now()
		err := f.dial(ctx, u)
		took := time.Since(began)
		longest = max(longest, took)
		if !errors.Is(err, syscall.ECONNREFUSED) || took > refusedWithin {
			wrong = append(wrong, fmt.Sprintf("%v: %v after %v", u, err, took.Round(time.Millisecond)))
		}
	}
	after, err := f.refusals(ctx)
	if err != nil {
		return err
	}
	// Users at work are refused meanwhile as well: what is counted is no less than these.
	f.check("all servers dead: refused at once, and counted", len(wrong) == 0 && after-before >= float64(len(f.users)),
		"%d users, the slowest after %.1f ms; the directors counted %.0f meanwhile%s", len(f.users), longest.Seconds()*1000, after-before, some(wrong))
	return nil
}

// refusals are the packets that both directors have refused so far.
func (f *failures) refusals(ctx context.Context) (sum float64, err error) {
	for _, d := range []string{"d1", "d2"} {
		n, err := f.metric(ctx, d, "manycast_director_refused_total")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// dial opens a connection for a user and closes it.
func (f *failures) dial(ctx context.Context, user netip.Addr) error {
	ns, err := f.lab.Namespace("users")
	if err != nil {
		return err
	}
	return ns.Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(user, 0)), Timeout: 2 * time.Second}
		c, err := d.DialContext(ctx, "tcp4", net.JoinHostPort(f.vars["vip"], "80"))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// metric adds up a metric of a node's daemon, whatever its labels.
func (f *failures) metric(ctx context.Context, node, name string) (sum float64, err error) {
	out, err := f.lab.Command(ctx, node, "curl", "-s", "-m", "2", "http://127.0.0.1:9500/metrics").Output()
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", node, err)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			f := strings.Fields(rest)
			var value float64
			if _, err := fmt.Sscan(f[len(f)-1], &value); err != nil {
				return 0, fmt.Errorf("metrics of %s: %s: %w", node, line, err)
			}
			sum += value
		}
	}
	return sum, nil
}

// suite are all daemons by node, each node's in the order in which they are started anew; the applications go on.
func (f *failures) suite() map[string][]string {
	daemons := map[string][]string{}
	for _, process := range []string{"bus", "dnsd", "holder", "igmpd", "director", "agent"} {
		for _, n := range f.topology.Nodes {
			for _, p := range n.Processes {
				if p.Name == process {
					daemons[n.Name] = append(daemons[n.Name], process)
				}
			}
		}
	}
	return daemons
}

// restart stops all daemons of the suite, as an upgrade of everything at once would, and starts them again.
func (f *failures) restart() failure {
	return failure{
		what: "all daemons: stopped and started",
		act: func(ctx context.Context) error {
			group, _ := errgroup.WithContext(ctx)
			for node, processes := range f.suite() {
				for _, p := range processes {
					group.Go(func() error { return f.lab.Stop(node, p) })
				}
			}
			return group.Wait()
		},
		mend: func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			for node, processes := range f.suite() {
				group.Go(func() error { return f.start(ctx, node, processes...) })
			}
			return group.Wait()
		},
	}
}

// flapping kills a server's agent again and again: it is kept out longer each time.
func (f *failures) flapping(server string) (all []failure) {
	for i := range 3 {
		x := f.agentKilled(server)
		x.what = fmt.Sprintf("agent %s killed, time %d of 3 in a row", server, i+1)
		x.goesOn = i > 0
		all = append(all, x)
	}
	last := &all[2]
	mend := last.mend
	last.mend = func(ctx context.Context) error {
		if err := mend(ctx); err != nil {
			return err
		}
		return f.checkDampened(ctx, server)
	}
	return all
}

func (f *failures) checkDampened(ctx context.Context, server string) error {
	var rows []map[string]any
	if err := f.tell(ctx, &rows, "server", "list"); err != nil {
		return err
	}
	for _, r := range rows {
		if r["name"] == server {
			text := fmt.Sprint(r["health"])
			f.check("a server that flaps is dampened", strings.Contains(text, "dampened"), "%s is %s", server, text)
			return nil
		}
	}
	return fmt.Errorf("manycast server list has no %s", server)
}
