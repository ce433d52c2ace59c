package fastpath

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/kernel"
)

// A process that dies leaves its programs at work; the next one finds all of it, changes nothing that is wanted as it is, and a clean end
// leaves nothing.
func TestNetTheNextProcessTakesOver(t *testing.T) {
	n := testnet.New(t)
	node, peer := n.Node("a"), n.Node("b")
	n.Link(node, "eth0", "10.0.1.1/24", peer, "eth0", "10.0.1.2/24")
	pins := filepath.Join(n.BPFFS(), "fastpath")
	begin := func() (f *Fastpath, ifindex int) {
		t.Helper()
		err := node.Do(func() (err error) {
			if f, err = Open(Options{Owners: 1 << 12, Labels: 1 << 10, Hops: 1 << 12, Pins: pins}); err != nil {
				return err
			}
			i, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			ifindex = i.Index
			return f.Attach(i.Index, Core)
		})
		if err != nil {
			t.Fatal(err)
		}
		return f, ifindex
	}
	s := halves(t)
	s.Trees[1] = append(s.Trees[1], Hop{Interface: 7, How: Label, Label: 101, To: next, From: here, MTU: 1500})
	far := kernel.Hop{Labels: []uint32{106}, Via: via4, Interface: 7, Tunnel: far6}
	s.Labels = map[uint32][]Hop{104: {{How: UDP, Label: 106, Interface: 7, To: next, From: here, MTU: 1500, Tunnel: far6, Next: far}}, 105: {{How: Local, Interface: 1}}, 106: {{How: Kernel, Next: far}}, 100: {{Interface: 7, How: Bare, To: next, From: here, MTU: 1500}}, 101: s.Trees[1], 102: nil,
		103: {{How: Kernel, Next: kernel.Hop{Labels: []uint32{104}, Via: via6, Interface: 7}}, {How: Label, Label: 105, Interface: 7, To: next, From: here, MTU: 1500, Next: kernel.Hop{Labels: []uint32{105}, Via: via4, Interface: 7}}},
	}
	f, ifindex := begin()
	set(t, f, s)
	in := frame(packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 64, payload: make([]byte, 20)}.ip())
	_, want := give(t, f.objects.FastCore, in)
	if err := f.Close(true); err != nil { // as kill -9 does, but for its descriptors
		t.Fatal(err)
	}

	f, again := begin()
	if again != ifindex || len(f.attached) != 1 {
		t.Errorf("attached %v", f.attached)
	}
	if _, got := give(t, f.objects.FastCore, in); !bytes.Equal(got, want) {
		t.Errorf("before the first Set: %x, want %x", got, want)
	}
	if err := f.Prune(); err != nil || !nativeIn(t, node, ifindex) {
		t.Errorf("what is wanted was pruned: %v", err)
	}
	left := map[uint32][]kernel.Hop{104: {far}, 105: {{Interface: 1}}, 106: {far}, 103: {{Labels: []uint32{104}, Via: via6, Interface: 7}, {Labels: []uint32{105}, Via: via4, Interface: 7}}}
	if diff := cmp.Diff(left, f.Labels(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("labels of the process before: -want +got:\n%s", diff)
	}
	places := f.hops.next
	f.hops.put = func(at uint32, hops []fastpathFastHop) error {
		t.Errorf("hops %v are written, at %d", hops, at)
		return nil
	}
	set(t, f, s)
	if f.hops.next != places || places != 9 {
		t.Errorf("%d places for hops, %d before, want 9", f.hops.next, places)
	}
	f.hops.put = f.putHops
	delete(s.VIPs, vip6)
	s.Trees = map[steer.Owner][]Hop{1: {{Interface: 8, How: Label, Label: 300, To: next, From: here, MTU: 1500}}}
	s.Labels = nil
	set(t, f, s)
	if _, got := give(t, f.objects.FastCore, in); bytes.Equal(got, want) {
		t.Error("what has changed has not")
	}
	var path fastpathFastPath
	var g [4]byte
	if f.objects.FastLabels.Iterate().Next(new(uint32), &path) || f.objects.Vips6.Lookup(vip6.As16(), &g) == nil {
		t.Error("labels or VIPs of the process before are left")
	}
	if err := node.Do(func() error { return f.Close(false) }); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(pins); err == nil {
		t.Errorf("left: %v", left)
	}
	if nativeIn(t, node, ifindex) {
		t.Error("the program is still on the interface")
	}
}

func nativeIn(t *testing.T, node *testnet.Node, ifindex int) (is bool) {
	t.Helper()
	if err := node.Do(func() error {
		is = IsNative(ifindex)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return is
}

// What a process before had on an interface that is not wanted any more goes.
func TestNetPrune(t *testing.T) {
	n := testnet.New(t)
	node, peer := n.Node("a"), n.Node("b")
	n.Link(node, "eth0", "10.0.1.1/24", peer, "eth0", "10.0.1.2/24")
	o := Options{Owners: 1 << 8, Labels: 1 << 8, Hops: 1 << 8, Pins: filepath.Join(n.BPFFS(), "fastpath")}
	var ifindex int
	err := node.Do(func() error {
		f, err := Open(o)
		if err != nil {
			return err
		}
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		ifindex = i.Index
		return errors.Join(f.Attach(ifindex, Edge), f.Close(true))
	})
	if err != nil || !nativeIn(t, node, ifindex) {
		t.Fatalf("not on: %v", err)
	}
	err = node.Do(func() error {
		f, err := Open(o)
		if err != nil {
			return err
		}
		return errors.Join(f.Prune(), f.Close(false))
	})
	if err != nil || nativeIn(t, node, ifindex) {
		t.Errorf("still on: %v", err)
	}
}

// A process of another configuration makes its own maps; what the one before has pinned goes.
func TestNetOtherSizes(t *testing.T) {
	n := testnet.New(t)
	pins := filepath.Join(n.BPFFS(), "fastpath")
	for _, owners := range []uint32{1 << 8, 1 << 9} {
		f, err := Open(Options{Owners: owners, Labels: 1 << 10, Hops: 1 << 12, Pins: pins})
		if err != nil {
			t.Fatal(err)
		}
		set(t, f, State{VIPs: map[netip.Addr]*steer.Plan{vip4: plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.0"})}})
		if err := f.Close(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := Remove(pins); err != nil {
		t.Fatal(err)
	}
}
