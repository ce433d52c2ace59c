package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// relayNet is a user and a server with a VIP of each IP version, and strict about where packets come from.
func relayNet(t *testing.T) (user, server *testnet.Node) {
	n := testnet.New(t)
	user, server = n.Node("u"), n.Node("s")
	n.Link(user, "eth0", "198.51.100.7/24", server, "eth0", "198.51.100.1/24")
	user.Address("eth0", "2001:db8:1::7/64")
	server.Address("eth0", "2001:db8:1::1/64")
	for _, vip := range []string{"192.0.2.80/32", "2001:db8::80/128"} {
		server.Address("lo", vip)
	}
	user.Route("192.0.2.80/32", "198.51.100.1")
	user.Route("2001:db8::80/128", "2001:db8:1::1")
	server.Sysctl("net.ipv4.conf.all.rp_filter", "1")
	return user, server
}

// serveUsers has an unmodified server in a node answer who asks it.
func serveUsers(t *testing.T, n *testnet.Node, at string) {
	t.Helper()
	l, err := n.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

func relayFile(t *testing.T, text string) (file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "relay.toml")
	if err := os.WriteFile(file, []byte(fmt.Sprintf("agent = %q\n", filepath.Join(dir, "agent.sock"))+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func relayCommand(t *testing.T, file string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"env", asLBD + "=1", self, "relay", "--config", file}
}

// rules are what leads backends' answers back.
func rules(t *testing.T, n *testnet.Node) string {
	t.Helper()
	var all []string
	for _, argv := range [][]string{
		{"ip", "-4", "rule"}, {"ip", "-6", "rule"}, {"ip", "-4", "route", "show", "table", "8466"}, {"ip", "-6", "route", "show", "table", "8466"},
	} {
		out, err := n.Run(argv...)
		if err != nil && !strings.Contains(out, "FIB table does not exist") {
			t.Fatal(out, err)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "8466") && argv[2] == "rule" || strings.HasPrefix(line, "local default") {
				all = append(all, line)
			}
		}
	}
	return strings.Join(all, "")
}

const transparentRelay = `
[[listen]]
name = "web"
addresses = ["192.0.2.80:80", "192.0.2.80:8000"]
backend = "127.0.0.1:8080"
user = "transparent"

[[listen]]
name = "host"
addresses = ["192.0.2.80:81"]
backend = "198.51.100.1:8081"
user = "transparent"

[[listen]]
name = "web6"
addresses = ["[2001:db8::80]:80"]
backend = "[::1]:8080"
user = "transparent"
`

// An unmodified server sees the users' own addresses, and nothing is left of how that is done.
func TestNetRelayTransparent(t *testing.T) {
	user, server := relayNet(t)
	for _, at := range []string{"127.0.0.1:8080", "198.51.100.1:8081", "[::1]:8080"} {
		serveUsers(t, server, at)
	}
	argv := relayCommand(t, relayFile(t, transparentRelay))
	if out, err := server.Run("ip", "rule", "add", "from", "127.0.0.9", "lookup", "8466", "protocol", "77"); err != nil { // of a configuration before
		t.Fatal(out, err)
	}
	relay := server.Start(argv...)
	for url, want := range map[string]string{
		"http://192.0.2.80": "198.51.100.7:", "http://192.0.2.80:8000": "198.51.100.7:", "http://192.0.2.80:81": "198.51.100.7:",
		"http://[2001:db8::80]": "[2001:db8:1::7]:",
	} {
		out := ""
		testnet.Eventually(t, 10*time.Second, func() bool {
			var err error
			out, err = user.Run("curl", "-sSg", "--max-time", "5", "--local-port", "40000-40100", url)
			return err == nil
		}, url, &out)
		if !strings.HasPrefix(out, want+"400") {
			t.Errorf("%s: the server saw %q, want %s400..", url, out, want)
		}
	}
	t.Logf("rules and routes:\n%s", rules(t, server))
	if got := strings.Count(rules(t, server), "\n"); got != 5 {
		t.Errorf("%d rules and routes, want 5", got)
	}
	relay.Signal(syscall.SIGTERM)
	if err := relay.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := rules(t, server); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

// What was taken away is put back, and a killed relay's rules are the next one's.
func TestNetRelayRoutesAreKept(t *testing.T) {
	user, server := relayNet(t)
	serveUsers(t, server, "127.0.0.1:8080")
	argv := relayCommand(t, relayFile(t, `
[[listen]]
name = "web"
addresses = ["192.0.2.80:80"]
backend = "127.0.0.1:8080"
user = "transparent"
`))
	relay := server.Start(argv...)
	served := func() bool {
		out, err := user.Run("curl", "-sS", "--max-time", "1", "http://192.0.2.80")
		return err == nil && strings.HasPrefix(out, "198.51.100.7:")
	}
	testnet.Eventually(t, 10*time.Second, served, "served")
	for _, argv := range [][]string{{"ip", "rule", "del", "priority", "8466"}, {"ip", "route", "flush", "table", "8466"}} {
		if out, err := server.Run(argv...); err != nil {
			t.Fatal(out, err)
		}
	}
	testnet.Eventually(t, 20*time.Second, func() bool { return strings.Count(rules(t, server), "\n") == 2 }, "rule and route are back")
	relay.Signal(syscall.SIGKILL)
	relay.Wait()
	relay = server.Start(argv...)
	testnet.Eventually(t, 10*time.Second, served, "served again")
	if got := strings.Count(rules(t, server), "\n"); got != 2 {
		t.Errorf("%d rules and routes, want 2", got)
	}
	relay.Signal(syscall.SIGTERM)
	if err := relay.Wait(); err != nil || rules(t, server) != "" {
		t.Errorf("%v, left:\n%s", err, rules(t, server))
	}
}

// Without NET_ADMIN the relay says which commands are needed, and serves when somebody has run them.
func TestNetRelayRoutesByHand(t *testing.T) {
	user, server := relayNet(t)
	serveUsers(t, server, "127.0.0.1:8080")
	file := relayFile(t, `
[[listen]]
name = "web"
addresses = ["192.0.2.80:80"]
backend = "127.0.0.1:8080"
user = "transparent"
`)
	without := func(caps ...string) []string {
		drop := "-" + strings.Join(caps, ",-")
		return append([]string{"setpriv", "--bounding-set=" + drop, "--inh-caps=" + drop}, relayCommand(t, file)...)
	}
	if out, err := server.Run(without("net_admin", "net_raw")...); err == nil || !strings.Contains(out, "lacks CAP_NET_ADMIN (to ") {
		t.Errorf("with neither: %v, %s", err, out)
	}
	if out, err := server.Run(without("net_bind_service")...); err == nil || !strings.Contains(out, "lacks CAP_NET_BIND_SERVICE (to ") {
		t.Errorf("without net_bind_service: %v, %s", err, out)
	}
	commands := []string{"ip -4 route add local default dev lo table 8466", "ip -4 rule add from 127.0.0.1 ipproto tcp sport 8080 lookup 8466 priority 8466"}
	relay := server.Start(without("net_admin")...)
	testnet.Eventually(t, 10*time.Second, func() bool {
		return strings.Contains(relay.Output(), commands[0]) && strings.Contains(relay.Output(), commands[1])
	}, "the commands are told")
	for _, c := range commands {
		if out, err := server.Run(strings.Fields(c)...); err != nil {
			t.Fatal(c, out, err)
		}
	}
	testnet.Eventually(t, 10*time.Second, func() bool {
		out, err := user.Run("curl", "-sS", "--max-time", "1", "http://192.0.2.80")
		return err == nil && strings.HasPrefix(out, "198.51.100.7:")
	}, "served")
	relay.Signal(syscall.SIGTERM)
	if err := relay.Wait(); err != nil || strings.Count(rules(t, server), "\n") != 2 {
		t.Errorf("%v, left, which was set by hand:\n%s", err, rules(t, server))
	}
}

// The user's address in front of a server by the PROXY protocol; and without either.
func TestNetRelayProxy(t *testing.T) {
	user, server := relayNet(t)
	server.Serve("127.0.0.1:8080", func(c net.Conn) {
		head := make([]byte, 200)
		n, _ := c.Read(head)
		line, _, _ := strings.Cut(string(head[:n]), "\r\n")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", line)
	})
	serveUsers(t, server, "127.0.0.1:8081")
	relay := server.Start(relayCommand(t, relayFile(t, `
[[listen]]
name = "proxy"
addresses = ["192.0.2.80:80"]
backend = "127.0.0.1:8080"
user = "proxy-v1"

[[listen]]
name = "none"
addresses = ["192.0.2.80:81"]
backend = "127.0.0.1:8081"
user = "none"
`))...)
	for url, want := range map[string]string{"http://192.0.2.80": "PROXY TCP4 198.51.100.7 192.0.2.80 ", "http://192.0.2.80:81": "127.0.0.1:"} {
		out := ""
		testnet.Eventually(t, 10*time.Second, func() bool {
			var err error
			out, err = user.Run("curl", "-sS", "--max-time", "5", url)
			return err == nil
		}, url, &out)
		if !strings.HasPrefix(out, want) {
			t.Errorf("%s: the server heard %q, want %q", url, out, want)
		}
	}
	if got := rules(t, server); got != "" {
		t.Errorf("rules that nobody needs:\n%s", got)
	}
	relay.Signal(syscall.SIGTERM)
	if err := relay.Wait(); err != nil {
		t.Fatal(err)
	}
}
