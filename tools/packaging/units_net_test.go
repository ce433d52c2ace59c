package packaging

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// onHost is a host with all units, under systemd.
type onHost struct {
	*testnet.Systemd
	t *testing.T
}

// newOnHost has the interfaces that the reference configurations name.
func newOnHost(t *testing.T) (h onHost, node *testnet.Node, interfaces []string) {
	n := testnet.New(t)
	node = n.Node("host")
	interfaces = []string{"users", "down", "eth0", "eth1"}
	for i, name := range interfaces {
		n.Link(node, name, fmt.Sprintf("10.%d.0.1/24", i+1), n.Node("beside"), name, "")
	}
	node.Address("lo", "10.0.0.1/32") // tdpd's
	files := t.TempDir()
	must(t, []string{"BUILT=" + build(t), "DESTDIR=" + files}, "tools/packaging/install", "install")
	script, err := os.ReadFile("testdata/one-host")
	if err != nil {
		t.Fatal(err)
	}
	h = onHost{node.Systemd(files), t}
	h.must("sh", "-ec", string(script))
	return h, node, interfaces
}

func (h onHost) must(argv ...string) string {
	h.t.Helper()
	out, err := h.Run(argv...)
	if err != nil {
		h.t.Fatalf("%q: %v\n%s", argv[0], err, out)
	}
	return strings.TrimSpace(out)
}

func (h onHost) property(unit, name string) string {
	h.t.Helper()
	return h.must("systemctl", "show", "--value", "--property="+name, unit)
}

// serves waits until a unit's daemon serves, and it is another process than before.
func (h onHost) serves(unit, before string) (pid string) {
	h.t.Helper()
	testnet.Eventually(h.t, 30*time.Second, func() bool {
		pid = h.property(unit, "MainPID")
		return h.property(unit, "ActiveState") == "active" && pid != before
	}, unit, " serves")
	return pid
}

var capabilityNumbers = map[string]int{
	"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW,
	"CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE, "CAP_PERFMON": unix.CAP_PERFMON, "CAP_BPF": unix.CAP_BPF,
}

// confined: a process is its unit's user's, and has its capabilities and no other.
func (h onHost) confined(unit, pid string) {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join("systemd", unit))
	if err != nil {
		h.t.Fatal(err)
	}
	value := func(key string) string { // "": not said
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(string(text))
		if m == nil {
			return ""
		}
		return m[1]
	}
	capabilities := func(key string) string {
		set := uint64(0)
		for _, name := range strings.Fields(value(key)) {
			number, ok := capabilityNumbers[name]
			if !ok {
				h.t.Fatalf("%s: %s is not known here", unit, name)
			}
			set |= 1 << number
		}
		return fmt.Sprintf("%016x", set)
	}
	user, bound, has := h.must("id", "-u", value("User")), capabilities("CapabilityBoundingSet"), capabilities("AmbientCapabilities")
	status := h.must("cat", "/proc/"+pid+"/status") + "\n"
	for _, want := range []string{
		"Uid:" + strings.Repeat("\t"+user, 4), "CapBnd:\t" + bound, "CapEff:\t" + has, "CapPrm:\t" + has, "CapAmb:\t" + has, "NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains(status, want+"\n") {
			h.t.Errorf("%s: no %q in\n%s", unit, want, status)
		}
	}
}

// TestNetUnits: systemd runs all daemons as their units say, starts those again that die, and a stop of each ends well and leaves nothing in the kernel. Then all
// start at once, as after a boot.
func TestNetUnits(t *testing.T) {
	h, node, interfaces := newOnHost(t)
	all := units(t)
	for _, unit := range all {
		pid := h.serves(unit, "0")
		h.confined(unit, pid)
		h.must("kill", "-KILL", pid)
		pid = h.serves(unit, pid)
		h.must("systemctl", "restart", unit)
		h.confined(unit, h.serves(unit, pid))
	}
	attached := 0
	for _, name := range interfaces {
		attached += len(node.Programs(name))
	}
	if attached == 0 {
		t.Error("no daemon has a program anywhere")
	}
	for _, unit := range slices.Backward(all) {
		h.must("systemctl", "stop", unit)
		if result := h.property(unit, "Result"); result != "success" {
			t.Errorf("the stop of %s: %s", unit, result)
		}
	}
	for _, name := range interfaces {
		if left := node.Programs(name); len(left) > 0 {
			t.Errorf("%s: programs are left: %q", name, left)
		}
	}
	if left := h.must("find", "/sys/fs/bpf/manycast", "-mindepth", "2", "!", "-type", "d"); left != "" {
		t.Errorf("pins are left: %s", left)
	}

	h.must("rm", "-rf", "/run/manycast", "/sys/fs/bpf/manycast") // as a boot does
	h.must("systemd-tmpfiles", "--create", "--boot")
	h.must(append([]string{"systemctl", "start"}, all...)...) // in the order that the units have
	for _, unit := range all {
		h.confined(unit, h.serves(unit, "0"))
	}
}
