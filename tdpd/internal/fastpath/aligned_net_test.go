package fastpath

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// TestNetProgramsKeepToWords: the verifier takes the programs where the CPU wants words aligned, as user-mode Linux's: here it is told to be so.
func TestNetProgramsKeepToWords(t *testing.T) {
	spec, err := loadFastpath()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Maps {
		m.MaxEntries = min(m.MaxEntries, 4096)
	}
	for _, p := range spec.Programs {
		p.Flags |= unix.BPF_F_STRICT_ALIGNMENT
	}
	err = testnet.WithCapabilities(func() error {
		c, err := ebpf.NewCollection(spec)
		if err == nil {
			c.Close()
		}
		return err
	}, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	if err != nil {
		t.Fatal(err)
	}
}
