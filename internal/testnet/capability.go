package testnet

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// WithCapabilities runs f with none of root's capabilities in effect but those given (unix.CAP_BPF), as a unit gives them to its
// daemon: a test as root must not show what its daemon may not do. They hold for f's own goroutine, not for those that it starts.
func WithCapabilities(f func() error, capabilities ...int) (err error) {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("which capabilities this thread has: %w", err)
	}
	only := had
	only[0].Effective, only[1].Effective = 0, 0
	for _, c := range capabilities {
		only[c/32].Effective |= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &only[0]); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("keep only capabilities %v (as root?): %w", capabilities, err)
	}
	defer func() {
		// A thread that does not get them back stays locked and ends with its goroutine.
		if e := unix.Capset(&header, &had[0]); e != nil {
			err = errors.Join(err, fmt.Errorf("take capabilities back: %w", e))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
