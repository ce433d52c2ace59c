package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/lab"
)

// How long things last. A leader is followed when its lease has run out.
const (
	dead      = time.Second
	leaderOut = 3 * time.Second
	cutFor    = 1500 * time.Millisecond
	routesIn  = 3 * time.Second // after a link was healed, until BGP is there again
)

// plan is what fails, in an order that gives each server time between its own failures: who dies again and again stays out longer.
func (f *failures) plan() []failure {
	var all []failure
	for _, s := range f.servers {
		all = append(all, f.powerLoss(s))
	}
	all = append(all, f.killed("director", "d1", "director", leaderOut))
	for _, s := range f.servers {
		all = append(all, f.applicationKilled(s))
	}
	all = append(all, f.killed("director", "d2", "director", leaderOut))
	for _, s := range f.servers {
		all = append(all, f.agentKilled(s))
	}
	all = append(all, f.leaderCutOff("1 of 2"), f.leaderCutOff("2 of 2"))
	for _, r := range []string{"d1", "d2", "r1", "r2"} {
		all = append(all, f.holderKilled(r), f.killed("igmpd", r, "igmpd", dead))
	}
	all = append(all, f.dnsdKilled())
	for _, b := range []string{"b1", "b2", "b3"} {
		all = append(all, f.killed("bus", b, "bus", dead))
	}
	for _, l := range f.topology.Links {
		if l.A.Node != "users" && l.A.Node != "near" { // theirs
			all = append(all, f.linkCut(l))
		}
	}
	for _, s := range f.servers {
		all = append(all, f.serverLinkCut(s))
	}
	for _, r := range []string{"d1", "d2", "r1", "r2"} {
		all = append(all, f.routingKilled(r))
	}
	all = append(all, f.restart(), f.oneWay("s1", "p2", "from"), f.oneWay("s3", "p1", "to"), f.agentStopped("s2"), f.serverStopped("s4"), f.slow("s3"))
	for _, n := range f.topology.Nodes {
		if !slices.Contains([]string{f.topology.Management.Node, "users", "near", "u"}, n.Name) {
			all = append(all, f.managementCut(n.Name))
		}
	}
	all = append(all, f.overload())
	all = append(all, f.withoutQuorum()...)
	all = append(all, f.allServersDead()...)
	all = append(all, f.flapping("s2")...)
	all = append(all, f.alone("s4")...)
	return f.chosen(all)
}

// kind is the first word of what fails.
func (x failure) kind() string {
	kind, _, _ := strings.Cut(x.what, " ")
	return strings.TrimSuffix(kind, ":")
}

// chosen are those that were asked for. What belongs together is chosen together, by its first.
func (f *failures) chosen(all []failure) (some []failure) {
	seen := map[string]int{}
	with := false
	for _, x := range all {
		if !x.goesOn {
			seen[x.kind()]++
			with = (len(f.o.Only) == 0 || slices.Contains(f.o.Only, x.kind())) && (!f.o.Few || seen[x.kind()] == 1)
		}
		if with {
			some = append(some, x)
		}
	}
	return some
}

func (f *failures) start(ctx context.Context, node string, processes ...string) error {
	for _, p := range processes {
		if err := f.lab.Start(ctx, node, p); err != nil {
			return err
		}
	}
	return nil
}

// reconfigure replaces a text in a file of a node.
func (f *failures) reconfigure(node, file, was, is string) error {
	text, err := os.ReadFile(filepath.Join(f.lab.Dir(node), file))
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), was) {
		return fmt.Errorf("%s of %s has no %q", file, node, was)
	}
	return f.lab.WriteFile(node, file, []byte(strings.Replace(string(text), was, is, 1)))
}

// serverBack undoes the power loss of a server.
func (f *failures) serverBack(ctx context.Context, server string) error {
	if err := f.lab.Restore(server); err != nil {
		return err
	}
	return f.start(ctx, server, "app", "agent")
}

func (f *failures) powerLoss(server string) failure {
	return failure{
		what: "server " + server + ": power loss", victim: server, lasts: dead,
		act:  func(context.Context) error { return f.lab.KillNode(server) },
		mend: func(ctx context.Context) error { return f.serverBack(ctx, server) },
	}
}

func (f *failures) applicationKilled(server string) failure {
	return failure{
		what: "application " + server + " killed", victim: server, byWord: true, lasts: dead,
		act:  func(context.Context) error { return f.lab.Kill(server, "app") },
		mend: func(ctx context.Context) error { return f.start(ctx, server, "app") },
	}
}

func (f *failures) agentKilled(server string) failure {
	return failure{
		what: "agent " + server + " killed, its application alive", victim: server, lasts: dead,
		act:  func(context.Context) error { return f.lab.Kill(server, "agent") },
		mend: func(ctx context.Context) error { return f.start(ctx, server, "agent") },
	}
}

// killed is a process whose death nobody is to notice.
func (f *failures) killed(kind, node, process string, lasts time.Duration) failure {
	return failure{
		what: fmt.Sprintf("%s %s killed", kind, node), lasts: lasts,
		act:  func(context.Context) error { return f.lab.Kill(node, process) },
		mend: func(ctx context.Context) error { return f.start(ctx, node, process) },
	}
}

// holderKilled: igmpd gives the next holder the sockets within a second; then it may be killed itself.
func (f *failures) holderKilled(node string) failure {
	x := f.killed("igmpd", node, "holder", dead)
	x.what = "igmpd " + node + ": holder killed"
	x.after = func(ctx context.Context) error { return f.watchUntil(ctx, time.Now().Add(1500*time.Millisecond)) }
	return x
}

// dnsdKilled: igmpd asks it for the groups' keys.
func (f *failures) dnsdKilled() failure {
	x := f.killed("igmpd", "ctl", "dnsd", dead)
	x.what = "igmpd without dnsd: killed"
	return x
}

// routingKilled kills the unicast routing of a router, which is not the suite's. It restarts gracefully: its routes stay, here and at its
// neighbours, until it has them again.
func (f *failures) routingKilled(node string) failure {
	x := f.killed("link", node, "bird", dead)
	x.what = "link " + node + ": its routing (BIRD) killed"
	mend := x.mend
	x.mend = func(ctx context.Context) error {
		if err := mend(ctx); err != nil {
			return err
		}
		return f.watchUntil(ctx, time.Now().Add(routesIn))
	}
	return x
}

func (f *failures) linkCut(l lab.Link) failure {
	end := l.A
	if len(f.topology.Node(end.Node).Routes) > 0 { // a host's, which would be lost with its interface
		end = l.B
	}
	x := failure{
		what: fmt.Sprintf("link %s-%s cut", l.A.Node, l.B.Node), lasts: cutFor, between: true,
		act: func(context.Context) error { return f.lab.CutLink(end) },
		mend: func(ctx context.Context) error {
			if err := f.lab.HealLink(end); err != nil {
				return err
			}
			return f.watchUntil(ctx, time.Now().Add(routesIn))
		},
	}
	return x
}

func (f *failures) serverLinkCut(server string) failure {
	end := f.portOf(server)
	return failure{
		what: fmt.Sprintf("link %s-%s cut", end.Node, server), victim: server, unseen: true, lasts: cutFor,
		act:  func(context.Context) error { return f.lab.CutLink(end) },
		mend: func(context.Context) error { return f.lab.HealLink(end) },
	}
}

func (f *failures) managementCut(node string) failure {
	end := lab.Endpoint{Node: node, Interface: lab.MgmtInterface}
	return failure{
		what: "link " + node + " to the management network cut", lasts: dead,
		act:  func(context.Context) error { return f.lab.CutLink(end) },
		mend: func(context.Context) error { return f.lab.HealLink(end) },
	}
}

// oneWay drops what comes into a server's switch by one port: from the server (p2) or to it (p1).
func (f *failures) oneWay(server, port, way string) failure {
	sw := "lan" + strings.TrimPrefix(server, "s")
	nft := func(ctx context.Context, rule string) error {
		ns, err := f.lab.Namespace(sw)
		if err != nil {
			return err
		}
		if out, err := ns.Command(ctx, "nft", rule).CombinedOutput(); err != nil {
			return fmt.Errorf("nft in %s: %w: %s", sw, err, out)
		}
		return nil
	}
	return failure{
		what: fmt.Sprintf("link to %s: nothing passes %s it, the other way all", server, way), victim: server, lasts: cutFor, fading: way == "from",
		act: func(ctx context.Context) error {
			return nft(ctx, fmt.Sprintf("table netdev oneway { chain in { type filter hook ingress device %q priority 0; policy drop; }; }", port))
		},
		mend: func(ctx context.Context) error { return nft(ctx, "delete table netdev oneway") },
	}
}

// stopped stops processes of a server without ending them, and lets them go on later.
func (f *failures) stopped(what, server string, lasts time.Duration, processes ...string) failure {
	signal := func(sig unix.Signal) func(context.Context) error {
		return func(context.Context) error {
			for _, p := range processes {
				if err := f.lab.Signal(server, p, sig); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return failure{what: what, victim: server, lasts: lasts, act: signal(unix.SIGSTOP), mend: signal(unix.SIGCONT)}
}

func (f *failures) agentStopped(server string) failure {
	return f.stopped("agent "+server+" stopped for 400 ms", server, 400*time.Millisecond, "agent")
}

func (f *failures) serverStopped(server string) failure {
	return f.stopped("server "+server+" stopped for 1 s", server, time.Second, "agent", "app")
}
