package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/manycast/manycast/internal/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Source is a topology file with the templates of its processes' files.
type Source struct {
	Text      []byte
	Templates fs.FS
}

// Up makes a lab of a topology and runs its steps. What fails is taken down again. An empty name means the topology's; set goes
// over the topology's vars, which have to have the names.
func (s *Store) Up(ctx context.Context, from Source, name string, set map[string]string) (*Lab, error) {
	topology, err := ParseTopology(from.Text)
	if err == nil {
		err = topology.override(set)
	}
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = topology.Name
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab makes network namespaces and has to run as root: use sudo")
	}
	l := &Lab{
		store: s, name: name, topology: topology, state: state{Topology: string(from.Text), Set: set},
		spaces: map[string]*netns.Namespace{}, reap: map[int]chan struct{}{},
	}
	if err := l.claim(); err != nil {
		return nil, err
	}
	if err := l.build(ctx, from.Templates); err != nil {
		removed, downErr := s.Down(context.WithoutCancel(ctx), l.name)
		s.notice("taken down again: %s", removed)
		return nil, errors.Join(fmt.Errorf("lab %s: %w", l.name, err), downErr)
	}
	return l, nil
}

// claim takes the lab's directory; that it is there is what "up" means.
func (l *Lab) claim() error {
	if err := os.MkdirAll(l.store.Root, 0o755); err != nil {
		return err
	}
	left, err := netns.List(namespacePrefix(l.name))
	if err != nil {
		return err
	}
	err = os.Mkdir(l.Dir(""), 0o700)
	if errors.Is(err, fs.ErrExist) || err == nil && len(left) > 0 {
		return fmt.Errorf("lab %s is up, or was not taken down after a crash: manycast lab down %s", l.name, l.name)
	}
	return err
}

func (l *Lab) build(ctx context.Context, templates fs.FS) error {
	l.mu.Lock()
	err := l.save()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	for _, d := range []string{"bpf", "logs", "notify"} {
		if err := os.Mkdir(l.Dir(d), 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mount("bpf", l.BPFFS(), "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	if err := l.admit(); err != nil {
		return err
	}
	if err := l.buildNetwork(ctx); err != nil {
		return err
	}
	l.store.notice("network is there: %d nodes, %d links, %d switches", len(l.topology.Nodes), len(l.topology.Links), len(l.topology.Switches))
	if err := l.writeFiles(templates); err != nil {
		return err
	}
	for _, step := range l.topology.Steps {
		if !l.topology.takes(step) {
			continue
		}
		if err := l.step(ctx, step); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Complete = true
	return l.save()
}

func (l *Lab) buildNetwork(ctx context.Context) error {
	t := l.topology
	for _, name := range t.namespaces() {
		ns, err := netns.Create(namespace(l.name, name))
		if err != nil {
			return err
		}
		l.spaces[name] = ns
		if err := sysctls(ns, t.Sysctls); err != nil {
			return err
		}
	}
	for _, link := range t.Links {
		if err := l.veth(l.spaces[link.A.Node], link.A.Interface, l.spaces[link.B.Node], link.B.Interface); err != nil {
			return err
		}
	}
	for _, sw := range t.Switches {
		if err := l.buildSwitch(l.spaces[sw.Name], "br0", sw.Snooping, sw.Ports); err != nil {
			return err
		}
	}
	if err := l.buildManagement(); err != nil {
		return err
	}
	for i := range t.Nodes {
		if err := l.buildNode(ctx, &t.Nodes[i]); err != nil {
			return fmt.Errorf("node %s: %w", t.Nodes[i].Name, err)
		}
	}
	return nil
}

// buildSwitch makes a bridge and links every port to it; its own ends are named p1, p2, ...
func (l *Lab) buildSwitch(ns *netns.Namespace, bridge string, snooping bool, ports []Endpoint) error {
	if err := ns.Bridge(bridge, snooping); err != nil {
		return err
	}
	for i, p := range ports {
		own := fmt.Sprintf("p%d", i+1)
		if err := errors.Join(l.veth(ns, own, l.spaces[p.Node], p.Interface), ns.Port(bridge, own)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) buildManagement() error {
	m := l.topology.Management
	if m.Node == "" {
		return nil
	}
	var ports []Endpoint
	for _, n := range l.topology.Nodes {
		if n.Name != m.Node {
			ports = append(ports, Endpoint{n.Name, MgmtInterface})
		}
	}
	if err := l.buildSwitch(l.spaces[m.Node], MgmtInterface, false, ports); err != nil {
		return err
	}
	for _, n := range l.topology.Nodes {
		if err := l.spaces[n.Name].Address(MgmtInterface, l.topology.MgmtAddress(n.Name)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) veth(a *netns.Namespace, ifa string, b *netns.Namespace, ifb string) error {
	if err := a.Veth(ifa, b, ifb); err != nil {
		return err
	}
	if l.topology.XDP {
		if err := errors.Join(a.TakesXDP(ifa), b.TakesXDP(ifb), a.WholeChecksums(ifa), b.WholeChecksums(ifb)); err != nil {
			return err
		}
	}
	return errors.Join(a.Up(ifa), b.Up(ifb))
}

func sysctls(ns *netns.Namespace, values map[string]string) error {
	for key, value := range values {
		if err := ns.Sysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) buildNode(ctx context.Context, n *Node) error {
	ns := l.spaces[n.Name]
	if n.Forward {
		if err := ns.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
			return err
		}
	}
	if err := sysctls(ns, n.Sysctls); err != nil {
		return err
	}
	for ifname, addresses := range n.Addresses {
		for _, a := range addresses {
			if err := ns.Address(ifname, a); err != nil {
				return err
			}
		}
	}
	if err := addRoutes(ns, n.Routes); err != nil {
		return err
	}
	if n.Nft == "" {
		return nil
	}
	cmd := ns.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(n.Nft)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func addRoutes(ns *netns.Namespace, routes []Route) error {
	for _, r := range routes {
		if err := ns.Route(r.To, r.Via, r.Dev); err != nil {
			return err
		}
	}
	return nil
}

// takes says whether the vars are those of the step.
func (t *Topology) takes(step Step) bool {
	for name, value := range step.When {
		if t.Vars[name] != value {
			return false
		}
	}
	return true
}

func (l *Lab) step(ctx context.Context, step Step) error {
	if len(step.Run) > 0 {
		argv, err := l.expand(step.On, step.Run)
		if err != nil {
			return err
		}
		l.store.notice("%s: %s", step.On, strings.Join(argv, " "))
		out, err := l.Command(ctx, step.On, l.unprivileged(Process{}, argv)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %s: %w: %s", step.On, strings.Join(argv, " "), err, lastLines(string(out), 5))
		}
		return nil
	}
	l.store.notice("start %s", strings.Join(step.Start, ", "))
	group, ctx := errgroup.WithContext(ctx)
	for _, ref := range step.Start {
		group.Go(func() error {
			node, process, err := l.topology.process(ref)
			if err != nil {
				return err
			}
			return l.Start(ctx, node.Name, process.Name)
		})
	}
	return group.Wait()
}
