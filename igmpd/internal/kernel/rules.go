package kernel

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	familyIPMR = 128 // RTNL_FAMILY_IPMR
	// ruleProtocol marks the rules that are ours (FRA_PROTOCOL; not in rt_protos).
	ruleProtocol = 77

	priorityUnmarked = 1000 // first: what has no mark skips all others
	priorityOwner    = 1001
	priorityRest     = 1002 // foreign marks
)

// rule is one `ip mrule` of ours.
type rule struct {
	priority   int
	mark, mask uint32
	table      uint32
}

// wantedRules lead every owner's mark to its table. The kernel walks rules one by one, hence the first.
func wantedRules(c Config, tables []uint32) []rule {
	var rules []rule
	if c.Mode == ModeOwner {
		rules = append(rules, rule{priorityUnmarked, 0, c.MarkMask, c.publicTable()})
		for _, t := range tables {
			if t != c.publicTable() {
				rules = append(rules, rule{priorityOwner, c.Mark | (t - c.TableBase), c.MarkMask, t})
			}
		}
	}
	if c.PublicTable != 0 {
		rules = append(rules, rule{priorityRest, 0, 0, c.publicTable()})
	}
	return rules
}

// readRules returns our rules in the kernel.
func readRules() (map[rule]bool, error) {
	list, err := netlink.RuleList(familyIPMR)
	if err != nil {
		return nil, fmt.Errorf("read the multicast rules: %w", err)
	}
	rules := map[rule]bool{}
	for _, r := range list {
		if r.Protocol != ruleProtocol {
			continue
		}
		have := rule{priority: r.Priority, mark: r.Mark, table: uint32(r.Table)}
		if r.Mask != nil {
			have.mask = *r.Mask
		}
		rules[have] = true
	}
	return rules, nil
}

func (r rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family, n.Protocol, n.Priority, n.Table = familyIPMR, ruleProtocol, r.priority, int(r.table)
	if r.mask != 0 {
		n.Mark, n.Mask = r.mark, &r.mask
	}
	return n
}

// ensureRules adds the wanted rules that have lacks.
func ensureRules(have map[rule]bool, want []rule) error {
	var errs []error
	for _, r := range want {
		if have[r] {
			continue
		}
		if err := netlink.RuleAdd(r.netlink()); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add multicast rule fwmark %#x/%#x to table %d: %w", r.mark, r.mask, r.table, err))
			continue
		}
		have[r] = true
	}
	return errors.Join(errs...)
}

// pruneRules deletes those of have that are not wanted.
func pruneRules(have map[rule]bool, want []rule) error {
	wanted := map[rule]bool{}
	for _, r := range want {
		wanted[r] = true
	}
	var errs []error
	for r := range have {
		if wanted[r] {
			continue
		}
		if err := netlink.RuleDel(r.netlink()); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete multicast rule fwmark %#x/%#x to table %d: %w", r.mark, r.mask, r.table, err))
			continue
		}
		delete(have, r)
	}
	return errors.Join(errs...)
}
