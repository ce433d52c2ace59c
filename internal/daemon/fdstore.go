package daemon

import (
	"errors"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// FDStore keeps descriptors with the service manager while the daemon restarts, see FileDescriptorStoreMax= in
// systemd.service(5). Without a service manager, or where the unit allows none, nothing is kept and nothing fails.
type FDStore struct {
	socket string // of the service manager; empty: there is none
}

// NewFDStore is the store of this process' service manager.
func NewFDStore() FDStore { return FDStore{os.Getenv("NOTIFY_SOCKET")} }

// Files are those that were kept, by name. It answers once: the environment that told is cleared.
func (s FDStore) Files() map[string]*os.File {
	files := map[string]*os.File{}
	for _, f := range activation.Files(true) {
		files[f.Name()] = f
	}
	return files
}

// Put keeps a duplicate of f. The name has neither colons nor control characters.
func (s FDStore) Put(name string, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	var sent error
	// Not polled: an error on the socket would drop it from the store.
	err = raw.Control(func(fd uintptr) { sent = s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(int(fd))) })
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// Remove gives up what is kept by that name.
func (s FDStore) Remove(name string) error {
	if err := s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
		return fmt.Errorf("no longer keep %s: %w", name, err)
	}
	return nil
}

func (s FDStore) send(state string, rights []byte) error {
	if s.socket == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: s.socket}, 0)
}
