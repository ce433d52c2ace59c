package testnet

import (
	"os"
	"testing"
)

// NewMPLS is New for tests on the kernel's MPLS tables, which are named TestVM: it fails the test at once where the kernel has none.
func NewMPLS(t testing.TB) *Net {
	t.Helper()
	if _, err := os.Stat("/proc/sys/net/mpls"); err != nil {
		t.Fatal("this test needs a kernel with MPLS (mpls_router): make test-vm, or go test -exec \"$PWD/bin/vmtest --\" (docs/testing.md)")
	}
	return New(t)
}
