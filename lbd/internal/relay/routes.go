package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/daemon"
)

const (
	routesEvery  = 5 * time.Second // somebody else may have taken them away
	routesMark   = 77              // the protocol number of our rules and routes (not in rt_protos): others are not touched
	loopback     = 1               // index of lo, in each network namespace
	rulePriority = 8466            // after the table of the host's own addresses, before its routes
)

// Routes bring the answers of transparent backends back to this host: they are for users' addresses, and would leave it. What a backend sends
// from its port is looked up in a table of its own, by which all addresses are local. It is a daemon.Task.
type Routes struct {
	backends []netip.AddrPort
	table    int
	keep     bool
	log      *slog.Logger

	mu      sync.Mutex
	missing string
}

var _ daemon.Stater = (*Routes)(nil)

// OpenRoutes sets the routes, if it may, and returns nil where no backend is transparent. With keep they stay at the end of Run.
func OpenRoutes(listens []Listen, table int, keep bool, log *slog.Logger) *Routes {
	backends := transparentBackends(listens)
	if len(backends) == 0 {
		return nil
	}
	r := &Routes{backends: backends, table: table, keep: keep, log: log}
	r.note(r.ensure())
	return r
}

// String names the task.
func (r *Routes) String() string { return "routes of answers" }

// Ready is nil: what can be set is there since OpenRoutes.
func (r *Routes) Ready() <-chan struct{} { return nil }

// State says what is missing, and by which commands it is had.
func (r *Routes) State() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missing
}

// Run keeps the routes until ctx is done.
func (r *Routes) Run(ctx context.Context) error {
	tick := time.NewTicker(routesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if r.keep {
				return nil
			}
			return r.remove()
		case <-tick.C:
			r.note(r.ensure())
		}
	}
}

func (r *Routes) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.missing
	r.missing = ""
	if err != nil {
		r.missing = "answers of backends do not come back: " + strings.Join(r.commands(), "; ")
	}
	if r.missing != was && err != nil {
		r.log.Error("answers of transparent backends do not come back: set the routes by hand", "err", err, "commands", r.commands())
	}
}

// commands are what does the same by hand.
func (r *Routes) commands() []string {
	var all []string
	for _, family := range r.families() {
		all = append(all, fmt.Sprintf("ip -%d route add local default dev lo table %d", version(family), r.table))
	}
	for _, b := range r.backends {
		all = append(all, fmt.Sprintf("ip -%d rule add from %v ipproto tcp sport %d lookup %d priority %d", version(familyOf(b)), b.Addr(), b.Port(), r.table, rulePriority))
	}
	return all
}

func version(family int) int {
	if family == unix.AF_INET {
		return 4
	}
	return 6
}

func familyOf(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (r *Routes) families() []int {
	var all []int
	for _, b := range r.backends {
		if f := familyOf(b); !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}

// ensure adds what is missing, and takes away what an earlier configuration has left.
func (r *Routes) ensure() error {
	var errs []error
	for _, family := range r.families() {
		have, err := r.routes(family)
		if errs = append(errs, err); len(have) > 0 {
			continue
		}
		if err := netlink.RouteAdd(r.route(family)); err != nil {
			errs = append(errs, fmt.Errorf("route all addresses of table %d to this host: %w", r.table, err))
		}
	}
	have, err := r.rules()
	errs = append(errs, err)
	for _, b := range r.backends {
		if slices.ContainsFunc(have, func(h netlink.Rule) bool { return backendOf(h) == b }) {
			continue
		}
		if err := netlink.RuleAdd(r.rule(b)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("lead answers of %v to table %d: %w", b, r.table, err))
		}
	}
	for _, h := range have {
		if h.Protocol == routesMark && !slices.Contains(r.backends, backendOf(h)) {
			errs = append(errs, ignore(unix.ENOENT, netlink.RuleDel(&h)))
		}
	}
	return errors.Join(errs...)
}

// remove takes away what is ours.
func (r *Routes) remove() error {
	have, err := r.rules()
	errs := []error{err}
	for _, h := range have {
		if h.Protocol == routesMark {
			errs = append(errs, ignore(unix.ENOENT, netlink.RuleDel(&h)))
		}
	}
	for _, family := range r.families() {
		have, err := r.routes(family)
		errs = append(errs, err)
		for _, h := range have {
			if h.Protocol == routesMark {
				errs = append(errs, ignore(unix.ESRCH, netlink.RouteDel(&h)))
			}
		}
	}
	return errors.Join(errs...)
}

// ignore is no error where err is what somebody else may have caused.
func ignore(what unix.Errno, err error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// route has all addresses be this host's.
func (r *Routes) route(family int) *netlink.Route {
	everything := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == unix.AF_INET6 {
		everything = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{Dst: everything, LinkIndex: loopback, Table: r.table, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Family: family, Protocol: routesMark}
}

// routes are those of the table that have all addresses be this host's, whoever has set them.
func (r *Routes) routes(family int) ([]netlink.Route, error) {
	all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: r.table, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, fmt.Errorf("read table %d: %w", r.table, err)
	}
	return slices.DeleteFunc(all, func(h netlink.Route) bool {
		if h.Dst == nil {
			return false
		}
		ones, _ := h.Dst.Mask.Size()
		return ones != 0
	}), nil
}

// rule leads what a backend sends to the table. It holds for packets that are made on this host, and for those that come from a container.
func (r *Routes) rule(b netip.AddrPort) *netlink.Rule {
	n := netlink.NewRule()
	bits := b.Addr().BitLen()
	n.Family, n.Protocol, n.Priority, n.Table = familyOf(b), routesMark, rulePriority, r.table
	n.Src = &net.IPNet{IP: b.Addr().AsSlice(), Mask: net.CIDRMask(bits, bits)}
	n.IPProto, n.Sport = unix.IPPROTO_TCP, netlink.NewRulePortRange(b.Port(), b.Port())
	return n
}

// rules are those that lead to the table, whoever has set them.
func (r *Routes) rules() ([]netlink.Rule, error) {
	var all []netlink.Rule
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.RuleListFiltered(family, &netlink.Rule{Table: r.table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		for _, n := range list {
			n.Family = family
			all = append(all, n)
		}
	}
	return all, nil
}

// backendOf is whose answers a rule leads to its table; zero where it leads something else.
func backendOf(n netlink.Rule) netip.AddrPort {
	if n.Src == nil || n.Sport == nil || n.Sport.Start != n.Sport.End || n.IPProto != unix.IPPROTO_TCP {
		return netip.AddrPort{}
	}
	addr, _ := netip.AddrFromSlice(n.Src.IP)
	if ones, bits := n.Src.Mask.Size(); ones != bits {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), n.Sport.Start)
}
