package bpfnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/manycast/manycast/internal/testnet"
)

// counting is a program that puts the length of each packet into a ring buffer.
func counting(t *testing.T) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ring.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // __sk_buff.len
		asm.StoreMem(asm.RFP, -8, asm.R2, asm.DWord),
		asm.LoadMapPtr(asm.R1, ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, 8), asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, ring
}

// TestNetRing: records come in order, whether they are waited for or not; who waits holds no processor, and ends when the ring does.
func TestNetRing(t *testing.T) {
	p, m := counting(t)
	r, err := OpenRing(m)
	if err != nil {
		t.Fatal(err)
	}
	got, ended := make(chan uint64, 1000), make(chan error)
	go func() {
		var record ringbuf.Record
		for {
			if err := r.ReadInto(&record); err != nil {
				ended <- err
				return
			}
			got <- binary.NativeEndian.Uint64(record.RawSample)
		}
	}()
	for n := range uint64(200) {
		if n%20 == 0 {
			testnet.Eventually(t, 5*time.Second, func() bool { return waits("bpfnet.(*Ring).ReadInto") }, "the reader waits as for a socket")
		}
		if _, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 14+n), Repeat: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(200) {
		select {
		case length := <-got:
			if length != 14+n {
				t.Fatalf("record %d is of a packet of %d bytes", n, length)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no record %d", n)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("who waits is not ended")
	}
}

// waits reports whether a goroutine that is in a function waits for the runtime's poller.
func waits(in string) bool {
	all := make([]byte, 1<<20)
	for _, g := range bytes.Split(all[:runtime.Stack(all, true)], []byte("\n\n")) {
		if state, _, _ := bytes.Cut(g, []byte("\n")); bytes.Contains(g, []byte(in)) && bytes.Contains(state, []byte("[IO wait")) {
			return true
		}
	}
	return false
}
