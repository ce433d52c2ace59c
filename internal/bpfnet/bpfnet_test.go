package bpfnet

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"github.com/manycast/manycast/internal/testnet"
)

// verdicts of a tcx or cls_bpf program: TCX_NEXT lets the next one decide, TCX_DROP ends the packet.
const (
	next = -1
	drop = 2
)

// counter is a program that counts the packets it sees and returns the verdict.
func counter(t *testing.T, verdict int32) (*ebpf.Program, func() uint64) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, verdict).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); m.Close() })
	return p, func() uint64 {
		var n uint64
		if err := m.Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// rig is a host that sends to a router on whose interface "in" the programs are.
type rig struct {
	t            *testing.T
	host, router *testnet.Node
	index        int
	bpffs        string
}

func newRig(t *testing.T) *rig {
	n := testnet.New(t)
	r := &rig{t: t, host: n.Node("h"), router: n.Node("r"), bpffs: n.BPFFS()}
	n.Link(r.host, "out", "10.0.0.1/24", r.router, "in", "10.0.0.2/24")
	r.do(func() error {
		l, err := netlink.LinkByName("in")
		if err == nil {
			r.index = l.Attrs().Index
		}
		return err
	})
	return r
}

func (r *rig) do(f func() error) {
	r.t.Helper()
	if err := r.router.Do(f); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) attach(p *ebpf.Program, dir Direction, o Options) *Attachment {
	r.t.Helper()
	var a *Attachment
	r.do(func() (err error) { a, err = Attach(p, r.index, dir, o); return err })
	return a
}

func (r *rig) pingAnswered() bool {
	_, err := r.host.Run("ping", "-c", "1", "-W", "1", "10.0.0.2")
	return err == nil
}

func TestNetFirstRunsFirst(t *testing.T) {
	for _, forced := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcx", true: "clsact"}[forced], func(t *testing.T) {
			r := newRig(t)
			second, seenBySecond := counter(t, next)
			first, _ := counter(t, drop)
			a := r.attach(second, Ingress, Options{Name: "second", Clsact: forced})
			if !r.pingAnswered() || seenBySecond() == 0 {
				t.Fatal("attached program does not see packets, or drops them")
			}
			b := r.attach(first, Ingress, Options{Name: "first", First: true, Clsact: forced})
			before := seenBySecond()
			if r.pingAnswered() || seenBySecond() != before {
				t.Fatal("First did not run before the other program")
			}
			r.do(b.Detach)
			if !r.pingAnswered() || seenBySecond() == before {
				t.Fatal("Detach took the wrong program off")
			}
			r.do(a.Detach)
			if out, err := r.router.Run("tc", "qdisc", "show", "dev", "in", "clsact"); err != nil || strings.Contains(out, "clsact") {
				t.Fatalf("qdisc left behind: %s %v", out, err)
			}
		})
	}
}

func TestNetPinnedProgramOutlivesItsHolder(t *testing.T) {
	r := newRig(t)
	if err := PinDir(filepath.Join(r.bpffs, "d")); err != nil {
		t.Fatal(err)
	}
	o := Options{Name: "x", Pin: filepath.Join(r.bpffs, "d", "in")}
	old, _ := counter(t, drop)
	a := r.attach(old, Ingress, o)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if r.pingAnswered() {
		t.Fatal("the program left with its holder")
	}
	fresh, seen := counter(t, next)
	b := r.attach(fresh, Ingress, o)
	if !r.pingAnswered() || seen() == 0 {
		t.Fatal("the next holder's program did not take over")
	}
	r.do(b.Detach)
	before := seen()
	r.pingAnswered()
	if seen() != before {
		t.Fatal("Detach left the program on the hook")
	}
}

func TestNetPinOfADeletedInterfaceIsMadeAnew(t *testing.T) {
	r := newRig(t)
	o := Options{Name: "x", Pin: filepath.Join(r.bpffs, "in")}
	p, seen := counter(t, next)
	a := r.attach(p, Egress, o)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"ip", "link", "del", "in"},
		{"ip", "link", "add", "in", "type", "veth", "peer", "name", "peer"},
		{"ip", "link", "set", "in", "up"}, {"ip", "link", "set", "peer", "up"},
	} {
		if out, err := r.router.Run(args...); err != nil {
			t.Fatalf("%v: %s", args, out)
		}
	}
	r.do(func() error {
		l, err := netlink.LinkByName("in")
		if err == nil {
			r.index = l.Attrs().Index
		}
		return err
	})
	b := r.attach(p, Egress, o)
	if out, err := r.router.Run("ping", "-c", "1", "-W", "1", "-I", "in", "10.0.0.1"); err == nil {
		t.Fatalf("nobody is there: %s", out)
	}
	if seen() == 0 {
		t.Fatal("not attached to the new interface")
	}
	r.do(b.Detach)
}

func TestPinDirWantsABPFFS(t *testing.T) {
	if err := PinDir(filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Fatalf("PinDir on an ordinary file system: %v", err)
	}
}
