package kernel

import (
	"errors"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/internal/testnet"
)

// floor loads bpf/floor.bpf.c at both hosts. agreed counts connections whose ends have both heard the other's option.
func (p *path) floor(user, server cgroup) (agreed func() uint64) {
	p.t.Helper()
	u, s := new(floorObjects), new(floorObjects)
	p.attachFloor(p.user, user, u, func() programs { return programs{u.FloorUser, u.FloorUserIngress, u.FloorUserEgress} })
	p.attachFloor(p.s1, server, s, func() programs { return programs{s.FloorServer, s.FloorServerIngress, s.FloorServerEgress} })
	p.t.Cleanup(func() {
		if p.read(u.Rewritten) == 0 || p.read(u.Rewritten) != p.read(s.Rewritten) {
			p.t.Errorf("the user rewrote %d segments, the server %d", p.read(u.Rewritten), p.read(s.Rewritten))
		}
	})
	return func() uint64 { return min(p.read(u.Agreed), p.read(s.Agreed)) }
}

func (p *path) read(v *ebpf.Variable) (n uint64) {
	p.t.Helper()
	if err := v.Get(&n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// attachFloor loads and attaches one host's.
func (p *path) attachFloor(node *testnet.Node, g cgroup, to *floorObjects, of func() programs) {
	p.t.Helper()
	e := families["IPv4"]
	h := hooks{dir: filepath.Join(p.bpffs, "floor-"+node.Name())}
	err := node.Do(func() error {
		spec, err := loadFloor()
		if err != nil {
			return err
		}
		vip, destination := spec.Variables["vip"].Set(e.vip.Addr().As4()), spec.Variables["destination"].Set(e.s1.Addr().As4())
		err = errors.Join(vip, destination, spec.Variables["port"].Set(newPlace(e.vip).Port), bpfnet.PinDir(h.dir), spec.LoadAndAssign(to, nil))
		if err != nil {
			return err
		}
		return h.attach(Config{Interfaces: []string{"eth0"}, Cgroup: g.dir}, of(), bpfnet.Options{Name: "floor"})
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := errors.Join(h.close(false), to.Close()); err != nil {
			p.t.Error(err)
		}
	})
}
