package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

const frrDir = "/usr/lib/frr"

// frr is a router with FRR's zebra and ldpd.
type frr struct {
	line *line
	at   int
	dir  string // of configuration and sockets
	text string // ldpd's configuration
	ldpd *testnet.Process
}

// frrConfig is what differs between tests.
type frrConfig struct {
	global string // lines of "mpls ldp"
	v4, v6 string // lines of the address families
	is4    bool
	is6    bool
}

// text is the configuration.
func (c frrConfig) text(l *line, at int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "log stdout\nmpls ldp\n router-id %v\n discovery hello interval 2\n discovery hello holdtime %.0f\n%s", l.id(at), hold.Seconds(), c.global)
	family := func(name, lines string, transport netip.Addr) {
		fmt.Fprintf(&b, " address-family %s\n  discovery transport-address %v\n%s", name, transport, lines)
		for _, i := range []string{"l", "r"}[min(1-min(at, 1), 1):] {
			if i == "l" || at < len(l.nodes)-1 {
				fmt.Fprintf(&b, "  interface %s\n  exit\n", i)
			}
		}
		b.WriteString(" exit-address-family\n")
	}
	if c.is4 {
		family("ipv4", c.v4, l.id(at))
	}
	if c.is6 {
		family("ipv6", c.v6, l.id6(at))
	}
	return b.String()
}

// frr starts it. Its directory is where FRR looks for that of its name, and belongs to FRR's user, who has to get there.
func (l *line) frr(at int, c frrConfig) *frr {
	l.t.Helper()
	for key, value := range map[string]string{"net.mpls.platform_labels": "100000", "net.mpls.conf.l.input": "1", "net.mpls.conf.r.input": "1"} {
		if at == 0 && strings.Contains(key, ".l.") || at == len(l.nodes)-1 && strings.Contains(key, ".r.") {
			continue
		}
		l.nodes[at].Sysctl(key, value)
	}
	f := &frr{line: l, at: at, dir: filepath.Join("/run/frr", l.nodes[at].Name()), text: c.text(l, at)}
	own(l.t, f.dir)
	l.t.Cleanup(func() { os.RemoveAll(f.dir) })
	f.start("zebra", "log stdout\n")
	f.ldpd = f.start("ldpd", f.text)
	return f
}

// restart kills ldpd, and starts it again after what else is to happen meanwhile.
func (f *frr) restart(meanwhile func()) {
	f.line.t.Helper()
	f.ldpd.Signal(unix.SIGKILL)
	_ = f.ldpd.Wait()
	meanwhile()
	f.ldpd = f.start("ldpd", f.text)
}

// own makes a directory of FRR's user.
func own(t testing.TB, dir string) {
	t.Helper()
	u, err := user.Lookup("frr")
	if err != nil {
		t.Fatalf("%v: tools/setup test installs FRR", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
}

func (f *frr) file(name string) string { return filepath.Join(f.dir, name) }

// start starts a daemon with its configuration, and waits until it listens.
func (f *frr) start(daemon, config string) *testnet.Process {
	f.line.t.Helper()
	if err := os.WriteFile(f.file(daemon+".conf"), []byte(config), 0o644); err != nil {
		f.line.t.Fatal(err)
	}
	node, listens := f.line.nodes[f.at], f.file(daemon+".vty")
	if daemon == "zebra" {
		listens = f.file("zserv.api")
	}
	_ = os.Remove(listens) // of a process before
	p := node.Start(filepath.Join(frrDir, daemon), "-N", node.Name(), "-f", f.file(daemon+".conf"), "-i", f.file(daemon+".pid"), "--vty_socket", f.dir)
	f.line.eventually(func() bool { _, err := os.Stat(listens); return err == nil }, daemon, " listens")
	return p
}

// vty has a daemon execute commands, and returns its answer to the last one and its status, 0 if there was nothing to complain of: each
// command ends by a zero byte, each answer by three and the status.
func (f *frr) vty(daemon string, commands ...string) (answer string, status byte) {
	f.line.t.Helper()
	c, err := net.Dial("unix", f.file(daemon+".vty"))
	if err != nil {
		f.line.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(soon))
	in := bufio.NewReader(c)
	for _, command := range append([]string{"enable"}, commands...) {
		if _, err := c.Write(append([]byte(command), 0)); err != nil {
			f.line.t.Fatal(err)
		}
		text, err := in.ReadBytes(0)
		end := make([]byte, 3)
		if err == nil {
			_, err = io.ReadFull(in, end)
		}
		if err != nil {
			f.line.t.Fatalf("FRR: %s: %v", command, err)
		}
		answer, status = strings.TrimSpace(string(bytes.TrimSuffix(text, []byte{0}))), end[2]
	}
	return answer, status
}

// show asks ldpd and decodes its answer, if there is one: it has none before all of it has started, and about no neighbour.
func (f *frr) show(command string, into any) {
	f.line.t.Helper()
	text, status := f.vty("ldpd", command)
	if text == "" || status != 0 {
		return
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		f.line.t.Fatalf("%s: %v\n%s", command, err, text)
	}
}

// configure enters lines below "mpls ldp".
func (f *frr) configure(lines ...string) {
	f.line.t.Helper()
	if text, status := f.vty("ldpd", append([]string{"configure terminal", "mpls ldp"}, lines...)...); status != 0 {
		f.line.t.Fatalf("%q: %s", lines, text)
	}
}

// neighbor is what ldpd says of one.
type neighbor struct {
	State          string `json:"state"`
	Authentication string `json:"authentication"`
	Local          string `json:"tcpLocalAddress"`
	Remote         string `json:"tcpRemoteAddress"`
	LocalPort      int    `json:"tcpLocalPort"`
	UpTime         string `json:"upTime"`
}

func (f *frr) neighbor(at int) neighbor {
	f.line.t.Helper()
	var all map[string]neighbor
	f.show("show mpls ldp neighbor detail json", &all)
	return all[f.line.id(at).String()]
}

// bindings are what ldpd has of a neighbour's and of its own labels, "imp-null" among them; empty: none.
func (f *frr) bindings(with int, p netip.Prefix) (local, remote string) {
	f.line.t.Helper()
	family := "ipv4"
	if p.Addr().Is6() {
		family = "ipv6"
	}
	var all struct {
		Bindings []struct {
			Prefix string `json:"prefix"`
			Peer   string `json:"neighborId"`
			Local  string `json:"localLabel"`
			Remote string `json:"remoteLabel"`
		} `json:"bindings"`
	}
	f.show("show mpls ldp "+family+" binding json", &all)
	clean := func(s string) string { return strings.Trim(s, "-") } // "-": none
	for _, b := range all.Bindings {
		if b.Prefix != p.String() {
			continue
		}
		local = clean(b.Local)
		if b.Peer == f.line.id(with).String() {
			return local, clean(b.Remote)
		}
	}
	return local, ""
}

// up is for how long ldpd has had its session with a router.
func (f *frr) up(at int) time.Duration {
	f.line.t.Helper()
	text := f.neighbor(at).UpTime
	var h, m, s time.Duration
	if _, err := fmt.Sscanf(text, "%d:%d:%d", &h, &m, &s); err != nil {
		f.line.t.Fatalf("FRR's session with %v is up for %q: %v", f.line.id(at), text, err)
	}
	return h*time.Hour + m*time.Minute + s*time.Second
}
