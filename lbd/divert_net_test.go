package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// TestNetOverloadedServerDiverts: new connections of a user whose server has too much to do are another one's, which answers with its own address. They
// take no longer. When there is less to do they are the server's again, and those that were made go on.
func TestNetOverloadedServerDiverts(t *testing.T) {
	a := newDynamicAgents(t)
	load := filepath.Join(t.TempDir(), "load")
	say := func(text string) {
		must(t, os.WriteFile(load+".new", []byte(text), 0o644))
		must(t, os.Rename(load+".new", load))
	}
	say("0.1")
	a.start(dynamicWeb+"balance: {shed: 90%}\n", func(name string, argv []string) []string {
		section := "[load]\ninterval = \"200ms\"\n"
		if name == "s1" {
			section += fmt.Sprintf("application = %q\n", load)
		}
		file, err := os.OpenFile(argv[len(argv)-1], os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = file.WriteString(section)
		must(t, errors.Join(err, file.Close()))
		return argv
	})
	for _, name := range []string{"s1", "s2"} {
		repeat(t, a.nodes[name], dynamicVIP)
	}
	client := a.client()
	var longest time.Duration
	dial := func(server string) (c net.Conn, is bool) {
		began := time.Now()
		if a.user.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", dynamicVIP.String(), 5*time.Second)
			return err
		}) != nil {
			return nil, false
		}
		longest = max(longest, time.Since(began))
		t.Cleanup(func() { c.Close() })
		user := netip.MustParseAddrPort(c.LocalAddr().String())
		all, err := client.Connections()
		must(t, err)
		for _, of := range all {
			is = is || of.User == user && of.Destination == netip.AddrPortFrom(netip.MustParseAddr(server), 80)
		}
		if !is {
			c.Close()
		}
		return c, is
	}
	goesOn := func(c net.Conn, at, text string) {
		t.Helper()
		must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
		_, err := io.WriteString(c, text)
		must(t, err)
		buf := make([]byte, len(text))
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != text {
			t.Fatalf("%q, %v", buf, err)
		}
		if out, err := a.nodes[at].Run("ss", "-Htn", "state", "established", "dst", c.LocalAddr().String()); err != nil || out == "" {
			t.Errorf("%s has no connection of %v: %s, %v", at, c.LocalAddr(), out, err)
		}
	}
	var first, second net.Conn
	lives := func(c *net.Conn, server string) func() bool {
		return func() (is bool) { *c, is = dial(server); return is }
	}
	testnet.Eventually(t, 20*time.Second, lives(&first, "10.9.0.1"), "connections live at s1: it is the owner of even users")
	longest = 0 // it takes a while until it serves
	say("3")
	testnet.Eventually(t, 40*time.Second, lives(&second, "10.9.0.2"), "a connection lives at s2, which has less to do")
	goesOn(first, "s1", "made before")
	goesOn(second, "s2", "made meanwhile")
	say("0.1")
	var third net.Conn
	testnet.Eventually(t, 60*time.Second, lives(&third, "10.9.0.1"), "connections live at s1 again")
	goesOn(second, "s2", "less to do")
	goesOn(third, "s1", "made after")
	t.Logf("the longest connect took %v", longest)
	if longest > 900*time.Millisecond { // a second is what it takes to send a SYN again
		t.Errorf("a connect took %v", longest)
	}
	a.stop()
}
