package bpfnet

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// rig is a veth pair; packets of one end come in at the hooks of eth0 at the other.
type rig struct {
	t       testing.TB
	a, b    *testnet.Node
	ifindex int
	pins    string
	trace   *ebpf.Map // word 0: the numbers of the programs that the last packet met; n: packets that program n saw
}

func newRig(t *testing.T) *rig {
	n := testnet.New(t)
	r := &rig{t: t, a: n.Node("a"), b: n.Node("b"), pins: filepath.Join(n.BPFFS(), "test")}
	n.Link(r.a, "eth0", "10.0.0.1/24", r.b, "eth0", "10.0.0.2/24")
	r.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			r.ifindex = l.Attrs().Index
		}
		return err
	})
	if err := PinDir(r.pins); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.trace, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 128, MaxEntries: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.trace.Close() })
	return r
}

func (r *rig) do(f func() error) {
	r.t.Helper()
	if err := r.a.Do(f); err != nil {
		r.t.Fatal(err)
	}
}

// program returns a program that counts, adds its number (1..15) to the mark, and shows the mark.
func (r *rig) program(number int32) *ebpf.Program {
	r.t.Helper()
	const mark = 8 // offset in struct __sk_buff
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, mark, asm.Word),
		asm.LSh.Imm(asm.R2, 4),
		asm.Or.Imm(asm.R2, number),
		asm.StoreMem(asm.R1, mark, asm.R2, asm.Word),
		asm.LoadMapValue(asm.R3, r.trace.FD(), 0),
		asm.StoreMem(asm.R3, 0, asm.R2, asm.DWord),
		asm.LoadMapValue(asm.R3, r.trace.FD(), uint32(8*number)),
		asm.Mov.Imm(asm.R4, 1),
		asm.StoreXAdd(asm.R3, asm.R4, asm.DWord),
		asm.Mov.Imm(asm.R0, -1),
		asm.Return(),
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Close() })
	return p
}

func (r *rig) attach(p *ebpf.Program, dir Direction, o Options) (a *Attachment) {
	r.t.Helper()
	r.do(func() (err error) {
		a, err = Attach(p, r.ifindex, dir, o)
		return err
	})
	return a
}

func (r *rig) get(i int) uint64 {
	var words [16]uint64
	if err := r.trace.Lookup(uint32(0), &words); err != nil {
		r.t.Fatal(err)
	}
	return words[i]
}

// order sends packets until one was seen, and returns the numbers of the programs that it met.
func (r *rig) order(from *testnet.Node, to string) string {
	r.t.Helper()
	if err := r.trace.Put(uint32(0), [16]uint64{}); err != nil {
		r.t.Fatal(err)
	}
	c, err := from.DialContext(r.t.Context(), "udp", to)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	testnet.Eventually(r.t, 5*time.Second, func() bool {
		c.Write([]byte("x"))
		return r.get(0) != 0
	}, "no program saw a packet")
	return fmt.Sprintf("%x", r.get(0))
}

func (r *rig) in() string  { return r.order(r.b, "10.0.0.1:9") }
func (r *rig) out() string { return r.order(r.a, "10.0.0.2:9") }

func bothKinds(t *testing.T, f func(t *testing.T, r *rig, o Options)) {
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprintf("clsact=%v", clsact), func(t *testing.T) {
			r := newRig(t)
			f(t, r, Options{Name: "manycast-test", Pin: filepath.Join(r.pins, "link"), Clsact: clsact})
		})
	}
}

func TestNetFirstRunsFirst(t *testing.T) {
	bothKinds(t, func(t *testing.T, r *rig, o Options) {
		out := r.attach(r.program(4), Egress, o)
		if got := r.out(); got != "4" {
			t.Errorf("programs on egress: %s, want 4", got)
		}
		r.do(out.Detach)

		other, first := o, o
		other.Name, other.Pin = "manycast-other", filepath.Join(r.pins, "other")
		first.Name, first.Pin, first.First = "manycast-first", filepath.Join(r.pins, "first"), true
		defer r.attach(r.program(2), Ingress, o).Close()
		defer r.attach(r.program(1), Ingress, first).Close()
		if got := r.in(); got != "12" {
			t.Errorf("programs ran in the order %s, want 12", got)
		}
		defer r.attach(r.program(3), Ingress, other).Close()
		if got := r.in(); len(got) != 3 || got[0] != '1' {
			t.Errorf("programs ran in the order %s, want 1 before 2 and 3", got)
		}
	})
}

func TestNetProgramOutlivesItsProcess(t *testing.T) {
	bothKinds(t, func(t *testing.T, r *rig, o Options) {
		a := r.attach(r.program(1), Ingress, o)
		if err := a.Close(); err != nil { // the kernel does the same when a process is killed
			t.Fatal(err)
		}
		if got := r.in(); got != "1" {
			t.Errorf("after the end of the process: %s, want 1", got)
		}
		a = r.attach(r.program(2), Ingress, o)
		if got := r.in(); got != "2" {
			t.Errorf("after the take-over: %s, want 2", got)
		}
		r.do(a.Detach)
		r.nothing(r.program(3), o)
	})
}

func TestNetPinIsRemovedWithoutItsProcess(t *testing.T) {
	bothKinds(t, func(t *testing.T, r *rig, o Options) {
		r.attach(r.program(1), Ingress, o).Close()
		r.do(func() error { return RemovePin(o.Pin) })
		r.do(func() error { return RemovePin(o.Pin) }) // again
		r.nothing(r.program(3), o)
	})
}

// nothing checks that no program is left on the hook, by one more that must be alone.
func (r *rig) nothing(p *ebpf.Program, o Options) {
	r.t.Helper()
	o.Pin, o.Name = "", "manycast-witness"
	w := r.attach(p, Ingress, o)
	if got := r.in(); len(got) != 1 {
		r.t.Errorf("programs on the hook: %s, want one", got)
	}
	r.do(w.Close)
	if out, err := r.a.Run("tc", "qdisc", "show", "dev", "eth0"); err != nil || strings.Contains(out, "clsact") {
		r.t.Errorf("a qdisc is left: %v\n%s", err, out)
	}
}

func TestNetTakeOverLetsNoPacketBy(t *testing.T) {
	bothKinds(t, func(t *testing.T, r *rig, o Options) {
		before, after := o, o
		before.Name, before.Pin, before.First = "manycast-before", "", true
		after.Pin = ""
		after.Name = "manycast-after"
		defer r.attach(r.program(1), Ingress, before).Close()
		a := r.attach(r.program(2), Ingress, o)
		defer r.attach(r.program(3), Ingress, after).Close()

		if err := r.trace.Put(uint32(0), [16]uint64{}); err != nil {
			t.Fatal(err)
		}
		var stop atomic.Bool
		done := make(chan error, 1)
		c, err := r.b.DialContext(t.Context(), "udp", "10.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { done <- flood(c, &stop) }()
		programs := []*ebpf.Program{r.program(2), r.program(2)}
		deadline := time.Now().Add(10 * time.Second)
		for i := 0; i < 100 || r.get(1) < 1000 && time.Now().Before(deadline); i++ {
			a.Close()
			a = r.attach(programs[i%2], Ingress, o)
		}
		stop.Store(true)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		testnet.Eventually(t, 5*time.Second, func() bool { return r.get(1) == r.get(3) }, "packets are under way")
		if all, met := r.get(1), r.get(2); all != met || all < 1000 {
			t.Errorf("%d packets of %d met the program", met, all)
		}
		r.do(a.Detach)
	})
}

// flood sends until told to stop; a full queue or a refused packet is no matter.
func flood(c net.Conn, stop *atomic.Bool) error {
	for i := uint32(0); !stop.Load(); i++ {
		c.Write(binary.BigEndian.AppendUint32(nil, i))
	}
	return nil
}

func TestNetPinOfAnotherKindOrInterfaceIsReplaced(t *testing.T) {
	r := newRig(t)
	o := Options{Name: "manycast-test", Pin: filepath.Join(r.pins, "link")}
	for _, clsact := range []bool{true, false, true} {
		o.Clsact = clsact
		r.attach(r.program(1), Ingress, o).Close()
		if got := r.in(); got != "1" {
			t.Errorf("clsact=%v: programs %s, want 1", clsact, got)
		}
	}
	r.do(func() error { return RemovePin(o.Pin) })
	r.nothing(r.program(3), o)

	o.Clsact = false
	r.attach(r.program(1), Ingress, o).Close()
	r.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "eth2"})
	})
	r.do(func() error {
		l, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		a, err := Attach(r.program(2), l.Attrs().Index, Ingress, o)
		if err != nil {
			return err
		}
		// The interface goes; what was attached goes with it and nothing complains.
		if err := netlink.LinkDel(l); err != nil {
			return err
		}
		return a.Detach()
	})
	r.nothing(r.program(3), o)
}

func TestNetAttachSaysWhatIsWrong(t *testing.T) {
	bothKinds(t, func(t *testing.T, r *rig, o Options) {
		err := r.a.Do(func() error {
			_, err := Attach(r.program(1), 9999, Ingress, o)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "interface 9999") {
			t.Errorf("no such interface: %v", err)
		}
		o.Pin = filepath.Join(t.TempDir(), "pin")
		err = r.a.Do(func() error {
			_, err := Attach(r.program(1), r.ifindex, Ingress, o)
			return err
		})
		if err == nil {
			t.Error("a pin outside a bpffs is taken")
		}
		r.nothing(r.program(3), o)
	})
	if err := PinDir(t.TempDir()); err == nil || !strings.Contains(err.Error(), "mount -t bpf bpf /sys/fs/bpf") {
		t.Errorf("PinDir outside a bpffs: %v", err)
	}
	bpf := testnet.New(t).BPFFS()
	if err := PinDir(filepath.Join(bpf, "a.b")); err == nil || !strings.Contains(err.Error(), "dot") {
		t.Errorf("PinDir with a dot: %v", err)
	}
	for range 2 {
		if err := PinDir(filepath.Join(bpf, "a/b")); err != nil {
			t.Errorf("PinDir: %v", err)
		}
	}
}

// TestNetPinDirOfAUnit: a unit's directory for pins is a mount of its own in what is read-only, and in one that is not: it stays, and that is no failure.
func TestNetPinDirOfAUnit(t *testing.T) {
	bpf := testnet.New(t).BPFFS()
	dir := filepath.Join(bpf, "client")
	mount := func(path string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(path, path, "", unix.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := PinDir(dir); err != nil {
		t.Fatal(err)
	}
	mount(dir, 0)
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	mount(bpf, unix.MS_REC)
	t.Cleanup(func() { unix.Unmount(bpf, unix.MNT_DETACH) })
	if err := RemovePinDir(dir); err != nil {
		t.Error(err)
	}
	mount(bpf, unix.MS_REMOUNT|unix.MS_RDONLY)
	if err := RemovePinDir(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
