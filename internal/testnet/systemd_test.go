package testnet_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/cgroup2"
	"github.com/manycast/manycast/internal/testnet"
)

// TestNetSystemd: systemd runs a service whose files are put over this machine's, in its node's network. None of it is on this machine then.
func TestNetSystemd(t *testing.T) {
	const unit = "usr/lib/systemd/system/manycast-tells.service"
	t.Run("machine", func(t *testing.T) {
		n := testnet.New(t)
		a, b := n.Node("a"), n.Node("b")
		n.Link(a, "eth7", "10.0.0.1/24", b, "eth0", "")
		files := t.TempDir()
		text := "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sh -c 'ip -4 addr >/etc/told; cat /proc/self/cgroup >>/etc/told'\n"
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(files, unit)), 0o755), os.WriteFile(filepath.Join(files, unit), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		s := a.Systemd(files)
		if out, err := s.Run("systemctl", "start", "manycast-tells"); err != nil {
			t.Fatal(out, err)
		}
		told, err := os.ReadFile(s.Path("etc/told"))
		if err != nil || !strings.Contains(string(told), "10.0.0.1/24") || !strings.Contains(string(told), "0::/system.slice/manycast-tells.service\n") {
			t.Errorf("%s, %v", told, err)
		}
	})
	for _, path := range []string{"/etc/told", "/" + unit} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	own, err := cgroup2.Own()
	if err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(own, fmt.Sprintf("mct%d-*", os.Getpid()))); err != nil || len(left) > 0 {
		t.Errorf("control groups are left: %v, %v", left, err)
	}
}
