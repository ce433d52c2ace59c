package testnet

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a small file system of its own, for what happens when it is full.
type Disk struct {
	Dir string
	t   *testing.T
}

// NewDisk mounts a disk of 64 KiB until the end of the test.
func NewDisk(t *testing.T) *Disk {
	t.Helper()
	d := &Disk{t.TempDir(), t}
	if err := unix.Mount("tmpfs", d.Dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small disk (as root?): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.Dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill leaves no room.
func (d *Disk) Fill() {
	d.t.Helper()
	if err := os.WriteFile(d.filler(), make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		d.t.Fatalf("the disk is not full: %v", err)
	}
}

// Free makes room again.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}
