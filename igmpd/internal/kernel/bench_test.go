package kernel

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkForward is the cost of a 64-byte packet from the user's socket through the router into the server's namespace, all on
// one CPU. "sender" ends at the router's classifier (nobody owns the user): what the others have in common.
func BenchmarkForward(b *testing.B) {
	for _, c := range []struct {
		name   string
		config func(r *rig) Config
		user   netip.Addr
	}{
		{"sender", func(r *rig) Config { return rigConfig(ModeOwner, true, "", r.bpffs) }, userAddr(103)},
		{"table", func(r *rig) Config { return rigConfig(ModeOwner, false, "", r.bpffs) }, userAddr(101)},
		{"accelerator", func(r *rig) Config { return rigConfig(ModeOwner, true, "", r.bpffs) }, userAddr(101)},
		{"source", func(r *rig) Config { return rigConfig(ModeSource, false, "", "") }, userAddr(101)},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newBareRig(b)
			l := r.open(c.config(r))
			r.set(l, rigState(quarters(b, 1, 2, 3)))
			fd := r.blaster(c.user)
			payload := make([]byte, 64-28)
			sent := uint64(0)
			for b.Loop() {
				if err := unix.Send(fd, payload, 0); err != nil {
					b.Fatal(err)
				}
				sent++
			}
			b.StopTimer()
			if config := c.config(r); config.Mode == ModeOwner {
				counters, err := l.Counters()
				if got := counters.NoOwner + counters.Tables + counters.Accelerated; err != nil || got != sent {
					b.Errorf("%d packets of %d counted: %v", got, sent, err)
				}
			}
		})
	}
}

// blaster is a connected socket without the runtime's poller around it.
func (r *rig) blaster(user netip.Addr) int {
	r.t.Helper()
	raw, err := r.sender(user).SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	fd := -1
	err = raw.Control(func(s uintptr) {
		if fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: 9000, Addr: group.As4()})
		}
	})
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { unix.Close(fd) })
	return fd
}
