package service

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/tdpd/internal/journal"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// alone starts a router whose peers do not come, by whose journal and kernel a process before is known.
func alone(t *testing.T, had map[netip.Prefix]wire.Label, left kernel.State, change ...func(*Options)) *router {
	t.Helper()
	path := filepath.Join(t.TempDir(), "labels")
	j, err := journal.Open(path, "boot")
	if err == nil {
		err = j.Set(had, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	return begin(t, transport.NewFabric(), "r1", "1.1.1.1", path, left, change...)
}

// interfaces of a router that is alone.
func interfaces() map[int]*routes.Interface {
	return map[int]*routes.Interface{1: iface(1, "lo", "1.1.1.1/32"), 2: iface(2, "a", "10.0.1.1/24"), 3: iface(3, "b", "10.0.2.1/24")}
}

// settled tells of routes, and waits for what they bring about.
func (r *router) settled(c routes.Change) {
	r.routes.Send(c)
	synctest.Wait()
}

func (r *router) end(t *testing.T) {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

// in is what the kernel does to a label and to a prefix.
func (r *router) in(label uint32, p string) string {
	s := r.kernel.State()
	text := func(hops []kernel.Hop) string {
		var out []string
		for _, h := range hops {
			out = append(out, fmt.Sprintf("%v%v", h.Via, h.Labels))
		}
		return strings.Join(out, " ")
	}
	return text(s.Labels[label]) + ", " + text(s.Prefixes[prefix(p)])
}

func push(label uint32, via string, index int) kernel.Hop {
	return kernel.Hop{Labels: []uint32{label}, Via: addr(via), Interface: index}
}

func both(a, b *routes.Route) *routes.Route {
	return &routes.Route{Metric: 20, Hops: append(slices.Clone(a.Hops), b.Hops...)}
}

// TestRoutesChangeInTheRecovery: what a process before has left stays while the route leads to where it led, and no longer.
func TestRoutesChangeInTheRecovery(t *testing.T) {
	const moves, goes, ours, shares, stays = "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"
	all := []string{moves, goes, ours, shares, stays}
	synctest.Test(t, func(t *testing.T) {
		had, left := map[netip.Prefix]wire.Label{}, kernel.State{Labels: map[uint32][]kernel.Hop{}, Prefixes: map[netip.Prefix][]kernel.Hop{}}
		table := map[netip.Prefix]*routes.Route{}
		for i, p := range all {
			label := uint32(100 + i)
			hops := []kernel.Hop{push(200+label, "10.0.1.2", 2)}
			table[prefix(p)] = via("10.0.1.2", 2)
			if p == shares {
				hops = append(hops, push(300+label, "10.0.2.2", 3))
				table[prefix(p)] = both(via("10.0.1.2", 2), via("10.0.2.2", 3))
			}
			had[prefix(p)], left.Labels[label], left.Prefixes[prefix(p)] = wire.Label(label), hops, hops
		}
		left.Labels[150] = []kernel.Hop{push(250, "10.0.1.2", 2)} // nobody knows of what
		r := alone(t, had, left)
		defer r.end(t)
		want := func(when string, entries ...string) {
			t.Helper()
			for i, p := range all {
				if got := r.in(uint32(100+i), p); got != entries[i] {
					t.Errorf("%s: %s: %s; want %s", when, p, got, entries[i])
				}
			}
		}
		r.settled(routes.Change{Full: true, Interfaces: interfaces(), Routes: table})
		const kept4 = "10.0.1.2[303] 10.0.2.2[403], 10.0.1.2[303] 10.0.2.2[403]"
		want("at first", "10.0.1.2[300], 10.0.1.2[300]", "10.0.1.2[301], 10.0.1.2[301]", "10.0.1.2[302], 10.0.1.2[302]", kept4, "10.0.1.2[304], 10.0.1.2[304]")
		r.settled(routes.Change{Routes: map[netip.Prefix]*routes.Route{
			prefix(moves): via("10.0.2.2", 3), prefix(goes): nil, prefix(ours): via("", 3), prefix(shares): via("10.0.2.2", 3),
		}})
		changed := []string{", ", ", ", ", ", "10.0.2.2[403], 10.0.2.2[403]", "10.0.1.2[304], 10.0.1.2[304]"}
		want("changed", changed...)
		r.settled(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix(moves): via("10.0.1.2", 2)}})
		want("back at the old next hop", changed...)
		if _, ok := r.tables.Incoming(104); !ok || r.kernel.State().Labels[150] == nil {
			t.Error("what is kept is not shown, or is not kept")
		}
		r.kernel.Lose() // all of it is brought in again
		synctest.Wait()
		want("brought in again", changed...)
		time.Sleep(r.Config.Restart.Recovery)
		synctest.Wait()
		want("recovered", ", ", ", ", ", ", ", ", ", ")
		if n := len(r.kernel.State().Labels); n > 0 {
			t.Errorf("%d labels are left", n)
		}
	})
}

// kept is the label that the journal has for a FEC.
func (r *router) kept(t *testing.T, fec netip.Prefix) (label wire.Label, ok bool) {
	t.Helper()
	if err := r.Do(t.Context(), func(time.Time) { label, ok = r.Journal.Labels()[fec] }); err != nil {
		t.Fatal(err)
	}
	return label, ok
}

// TestLabelsOutliveTheProcess: those of FECs without an entry, too, and those that peers have yet to release.
func TestLabelsOutliveTheProcess(t *testing.T) {
	const p, q = "10.8.0.0/16", "10.7.0.0/16"
	synctest.Test(t, func(t *testing.T) {
		r := alone(t, map[netip.Prefix]wire.Label{prefix(p): 16}, kernel.State{Labels: map[uint32][]kernel.Hop{17: {{Interface: 1}}}})
		defer r.end(t)
		r.settled(routes.Change{Full: true, Interfaces: interfaces(), Routes: map[netip.Prefix]*routes.Route{prefix(q): via("10.0.1.2", 2)}})
		r.settled(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix(p): via("10.0.1.2", 2)}})
		if a, b := r.labels.Bindings(prefix(p)).Local, r.labels.Bindings(prefix(q)).Local; a != 16 || b != 18 {
			t.Errorf("labels %v and %v, want 16 as before and 18", a, b)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, r1, r2, r3 := chain(t)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		fec := prefix("10.9.0.0/24")
		label, _ := r2.kept(t, fec)
		r1.net.Break()
		r1.Keep = true
		r1.end(t) // and does not come back
		r2.settled(routes.Change{Routes: map[netip.Prefix]*routes.Route{fec: nil}})
		if got, ok := r2.kept(t, fec); !ok || got != label || label < wire.LabelFirst {
			t.Errorf("the journal has label %v, %v; want %v, which a peer has", got, ok, label)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got, ok := r2.kept(t, fec); ok {
			t.Errorf("the journal still has label %v", got)
		}
		r2.end(t)
		r3.end(t)
	})
}

// TestLabelsOfOthers in the kernel are given to no FEC, whether they were there, come to what has one, or come before one is given.
func TestLabelsOfOthers(t *testing.T) {
	occupy := func(k kernel.Backend, from, below uint32, tells bool) {
		for label := from; label < below; label++ {
			k.(*kernel.Fake).Occupy(label, tells)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		f, dir := transport.NewFabric(), t.TempDir()
		r1 := begin(t, f, "r1", "1.1.1.1", filepath.Join(dir, "1"), kernel.State{})
		r2 := begin(t, f, "r2", "2.2.2.2", filepath.Join(dir, "2"), kernel.State{}, func(o *Options) { occupy(o.Kernel, 16, 100, false) })
		r3 := begin(t, f, "r3", "3.3.3.3", filepath.Join(dir, "3"), kernel.State{})
		f.Link(r1.net, "a", addr("10.0.12.1"), r2.net, "a", addr("10.0.12.2"))
		f.Link(r2.net, "b", addr("10.0.23.2"), r3.net, "a", addr("10.0.23.3"))
		synctest.Wait()
		occupy(r3.kernel, 16, 100, false) // they come as if at the same time
		tell(r1, r2, r3)
		want := func(when string, least uint32) {
			t.Helper()
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if labels := tree(t, when, r1, r2, r3); slices.Min(labels) < least {
				t.Errorf("%s: labels %v, below %d others have some", when, labels, least)
			}
		}
		want("at first", 100)
		if text := r2.log.String(); strings.Contains(text, "level=ERROR") {
			t.Errorf("what was there was not looked at: %s", text)
		}
		occupy(r2.kernel, 100, 200, true)
		want("occupied", 100)
		if label := tree(t, "occupied", r1, r2, r3)[0]; label < 200 {
			t.Errorf("label %d is another's", label)
		}
		for _, r := range []*router{r1, r2, r3} {
			r.end(t)
		}
	})
}

// TestTheWholeIsNotPutOff by changes that fail, however often they come.
func TestTheWholeIsNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := alone(t, nil, kernel.State{})
		defer r.end(t)
		r.settled(routes.Change{Full: true, Interfaces: interfaces(), Routes: map[netip.Prefix]*routes.Route{}})
		r.kernel.Fail(fmt.Errorf("no"))
		before := r.kernel.Sets()
		for range 60 {
			r.kernelChange()
			time.Sleep(10 * time.Second)
		}
		if n := r.kernel.Sets() - before; n < 9 || n > 20 {
			t.Errorf("all was tried %d times in 10 minutes", n)
		}
	})
}

// kernelChange has the server's label change.
func (r *router) kernelChange() {
	p, route := prefix("10.9.0.0/24"), via("", 3)
	if r.fecs.Table().Routes[p] != nil {
		route = nil
	}
	r.settled(routes.Change{Routes: map[netip.Prefix]*routes.Route{p: route}})
}

// TestReadyWithTheWhole: a change that succeeds is not all there is.
func TestReadyWithTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attached := prefix("10.9.0.80/32")
		r := alone(t, nil, kernel.State{})
		defer r.end(t)
		r.kernel.RefuseLabel(16, fmt.Errorf("no"))
		r.settled(routes.Change{Full: true, Interfaces: interfaces(), Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("", 3)}})
		if r.State() == "" || r.kernel.Sets() != 1 {
			t.Fatal("the label of the server was not refused")
		}
		r.settled(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): nil}})
		select {
		case <-r.Ready():
			t.Errorf("ready, without %v", attached)
		default:
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		select {
		case <-r.Ready():
		default:
			t.Error("not ready")
		}
	})
}

// TestDownLinksTakeLabels: labelled packets are taken as soon as the link is up again, whenever that is noticed.
func TestDownLinksTakeLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := alone(t, nil, kernel.State{})
		defer r.end(t)
		r.settled(routes.Change{Full: true, Interfaces: interfaces()})
		down := iface(2, "a", "10.0.1.1/24")
		down.Up = false
		sets := r.kernel.Sets()
		for _, i := range []*routes.Interface{down, iface(2, "a", "10.0.1.1/24"), iface(7, "veth7")} {
			r.settled(routes.Change{Interfaces: map[int]*routes.Interface{i.Index: i}})
			if got := r.kernel.State().Interfaces; !slices.Equal(got, []string{"a", "b"}) || r.kernel.Sets() != sets {
				t.Errorf("%+v: labels are taken from %v, after %d comparisons", i, got, r.kernel.Sets()-sets)
			}
		}
		r.settled(routes.Change{Interfaces: map[int]*routes.Interface{2: nil, 9: iface(9, "a", "10.0.1.1/24")}})
		if r.kernel.Sets() != sets+1 {
			t.Error("the settings of a new interface are not looked at")
		}
	})
}
