package kernel

import (
	"errors"
	"fmt"

	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"golang.org/x/sys/unix"
)

// routes are the tables of the Linux kernel.
type routes struct {
	conn     *rtnl.Conn
	protocol uint8 // of IP routes
	sent     int   // changes asked for so far
}

const interruptionsMax = 10

func (r *routes) read() (have map[id][]Hop, others []uint32, err error) {
	have = map[id][]Hop{}
	for _, family := range []uint8{unix.AF_MPLS, unix.AF_INET, unix.AF_INET6} {
		number := r.protocol
		if family == unix.AF_MPLS {
			number = 0 // others' labels, too
		}
		err := r.dump(family, number, func(route rtnl.Route) {
			if route.Protocol == r.number(family) {
				have[id{route.Prefix, route.Label, route.Metric}] = Canonical(fromRoute(route.Hops))
			} else {
				others = append(others, route.Label)
			}
		})
		if err != nil {
			return nil, nil, explain(err)
		}
	}
	return have, others, nil
}

// number is the protocol of our routes of an address family.
func (r *routes) number(family uint8) uint8 {
	if family == unix.AF_MPLS {
		return Protocol
	}
	return r.protocol
}

func (r *routes) dump(family, protocol uint8, do func(rtnl.Route)) (err error) {
	for range interruptionsMax {
		if err = r.conn.Dump(family, protocol, do); !errors.Is(err, rtnl.ErrInterrupted) {
			return err
		}
	}
	return err
}

// used is the number above the highest label that anybody has an entry for.
func (r *routes) used() (above uint32, err error) {
	err = r.dump(unix.AF_MPLS, 0, func(route rtnl.Route) { above = max(above, route.Label+1) })
	return above, err
}

func (r *routes) apply(changes []change) (map[int]error, error) {
	requests := make([]rtnl.Request, len(changes))
	for n, c := range changes {
		requests[n] = r.request(c)
	}
	r.sent += len(requests)
	failed, err := r.conn.Do(requests)
	for n, e := range failed {
		if changes[n].verb == remove && gone(e) {
			delete(failed, n)
			continue
		}
		failed[n] = explainChange(changes[n], e)
	}
	return failed, err
}

// gone says that what was to be removed is not there.
func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)
}

func (r *routes) request(c change) rtnl.Request {
	q := rtnl.Request{Type: unix.RTM_NEWROUTE, Route: rtnl.Route{Prefix: c.id.prefix, Label: c.id.label, Metric: c.id.metric,
		Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN, Hops: toRoute(c.hops)}}
	q.Route.Protocol = r.number(q.Route.Family())
	switch c.verb {
	case add:
		q.Flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	case replace:
		q.Flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	case remove:
		q.Type = unix.RTM_DELROUTE
	}
	return q
}

func toRoute(hops []Hop) []rtnl.Hop {
	out := make([]rtnl.Hop, len(hops))
	for i, h := range hops {
		out[i] = rtnl.Hop{Labels: h.Labels, Via: h.Via, Interface: h.Interface}
	}
	return out
}

func fromRoute(hops []rtnl.Hop) []Hop {
	out := make([]Hop, len(hops))
	for i, h := range hops {
		out[i] = Hop{Labels: h.Labels, Via: h.Via, Interface: h.Interface}
	}
	return out
}

// explain says what a general error wants.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: needs CAP_NET_ADMIN", err)
	}
	return err
}

// explainChange says what the kernel's refusal of a change means.
func explainChange(c change, err error) error {
	labels := !c.id.prefix.IsValid()
	switch {
	case errors.Is(err, unix.EEXIST) && labels:
		return fmt.Errorf("somebody else has an entry for it (ip -f mpls route show %d): %w", c.id.label, err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("somebody else has a route of metric %d for it (ip route show %v): %w", c.id.metric, c.id.prefix, err)
	case errors.Is(err, unix.EOPNOTSUPP) && labels:
		return fmt.Errorf("%w: is mpls_router loaded?", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: is mpls_iptunnel loaded (CONFIG_MPLS_IPTUNNEL)?", err)
	}
	return explain(err)
}
