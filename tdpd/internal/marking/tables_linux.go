package marking

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/rtnl"
)

// tables keeps account of our rules and tables in the kernel, and makes them what is wanted: in two parts, for what is new has to be there
// before packets are marked by it, and what goes only afterwards. Rules, and default routes outside of the kernel's own tables, are ours by their
// protocol. One goroutine at a time may use it.
type tables struct {
	conn  *rtnl.Conn
	known bool // the account is true
	have  wanted
}

const interruptionsMax = 10

// know reads what is there, where the account may not be true.
func (t *tables) know() error {
	if t.known {
		return nil
	}
	err := t.read()
	for range interruptionsMax {
		if !errors.Is(err, rtnl.ErrInterrupted) {
			break
		}
		err = t.read()
	}
	t.known = err == nil
	return err
}

func (t *tables) read() error {
	t.have = wanted{map[rtnl.Rule]bool{}, map[table][]kernel.Hop{}}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		rules, err := t.conn.Rules(family, kernel.Protocol)
		if err != nil {
			return err
		}
		for _, r := range rules {
			t.have.rules[r] = true
		}
		err = t.conn.DumpTables(family, kernel.Protocol, func(r rtnl.Route) {
			if r.Table <= 0xff || r.Prefix.Bits() != 0 || r.Metric != kernel.Metric {
				return
			}
			var hops []kernel.Hop
			for _, h := range r.Hops {
				if r.Type == unix.RTN_UNICAST {
					hops = append(hops, kernel.Hop{Labels: h.Labels, Via: h.Via, Interface: h.Interface})
				}
			}
			key := table{family, r.Table}
			t.have.tables[key] = kernel.Canonical(append(t.have.tables[key], hops...))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// add brings in what is new, and replaces what has changed, each in one step: tables before the rules that lead there.
func (t *tables) add(w wanted) error {
	if err := t.know(); err != nil {
		return err
	}
	var all []change
	for key, hops := range w.tables {
		have, there := t.have.tables[key]
		switch {
		case !there:
			all = append(all, change{table: key, hops: hops, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL})
		case !kernel.EqualHops(have, hops):
			all = append(all, change{table: key, hops: hops, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE})
		}
	}
	for r := range w.rules {
		if !t.have.rules[r] {
			all = append(all, change{rule: r, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL})
		}
	}
	return t.carryOut(all)
}

// prune removes what is not wanted: rules before the tables that they lead to.
func (t *tables) prune(w wanted) error {
	if err := t.know(); err != nil {
		return err
	}
	var all []change
	for r := range t.have.rules {
		if !w.rules[r] {
			all = append(all, change{rule: r, remove: true})
		}
	}
	for key := range t.have.tables {
		if _, is := w.tables[key]; !is {
			all = append(all, change{table: key, remove: true})
		}
	}
	return t.carryOut(all)
}

// change is one step.
type change struct {
	rule   rtnl.Rule // zero: of table
	table  table
	hops   []kernel.Hop
	flags  uint16
	remove bool
}

func (c change) isRule() bool { return c.rule != rtnl.Rule{} }

func (c change) String() string {
	if c.isRule() {
		return fmt.Sprintf("%s rule of priority %d, mark %#x/%#x, to table %d", familyName(c.rule.Family), c.rule.Priority, c.rule.Mark, c.rule.Mask, c.rule.Table)
	}
	return fmt.Sprintf("%s default route of table %d", familyName(c.table.family), c.table.number)
}

func familyName(family uint8) string {
	if family == unix.AF_INET6 {
		return "IPv6"
	}
	return "IPv4"
}

func (c change) request() rtnl.Request {
	if c.isRule() {
		if c.remove {
			return rtnl.Request{Type: unix.RTM_DELRULE, Rule: c.rule}
		}
		return rtnl.Request{Type: unix.RTM_NEWRULE, Flags: c.flags, Rule: c.rule}
	}
	r := rtnl.Route{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Metric: kernel.Metric, Protocol: kernel.Protocol, Table: c.table.number}
	if c.table.family == unix.AF_INET6 {
		r.Prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if c.remove {
		return rtnl.Request{Type: unix.RTM_DELROUTE, Route: r}
	}
	r.Type = unix.RTN_UNREACHABLE
	for _, h := range c.hops {
		r.Type, r.Hops = unix.RTN_UNICAST, append(r.Hops, rtnl.Hop{Labels: h.Labels, Via: h.Via, Interface: h.Interface})
	}
	return rtnl.Request{Type: unix.RTM_NEWROUTE, Flags: c.flags, Route: r}
}

// carryOut makes changes in their order, and notes those that succeeded.
func (t *tables) carryOut(all []change) error {
	if len(all) == 0 {
		return nil
	}
	requests := make([]rtnl.Request, len(all))
	for i, c := range all {
		requests[i] = c.request()
	}
	failed, err := t.conn.Do(requests)
	t.known = err == nil
	errs := []error{err}
	for i, c := range all {
		if e := failed[i]; e != nil && (!c.remove || !isGone(e)) {
			errs = append(errs, fmt.Errorf("%v: %w", c, explain(e)))
			continue
		}
		t.have.note(c)
	}
	return errors.Join(errs...)
}

func (w *wanted) note(c change) {
	switch {
	case c.isRule() && c.remove:
		delete(w.rules, c.rule)
	case c.isRule():
		w.rules[c.rule] = true
	case c.remove:
		delete(w.tables, c.table)
	default:
		w.tables[c.table] = c.hops
	}
}

// isGone says that what was to be removed is not there.
func isGone(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) }

// explain says what the kernel's refusal means.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("somebody else has one there (choose another users_table or users_priority): %w", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: is mpls_iptunnel loaded (CONFIG_MPLS_IPTUNNEL)?", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: needs CAP_NET_ADMIN", err)
	}
	return err
}
