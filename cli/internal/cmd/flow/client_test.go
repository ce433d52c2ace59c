package flow_test

import (
	"encoding/json"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/clientstatus"
)

// tellStatus answers on a socket as lbd client does.
func tellStatus(t *testing.T, s clientstatus.Status) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "status.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = json.NewEncoder(c).Encode(s)
			c.Close()
		}
	}()
	return socket
}

func TestListOfClient(t *testing.T) {
	at := netip.MustParseAddrPort
	b := cmdtest.Start(t)
	socket := tellStatus(t, clientstatus.Status{Connections: []clientstatus.Connection{
		{User: at("10.1.0.7:40001"), VIP: at("192.0.2.80:80"), Service: "shop", Tag: 7, Cookie: "0a0b0c0d", Destination: at("10.3.0.4:80"), Moves: 2, Sequence: 3},
		{User: at("[2001:db8:1::7]:40002"), VIP: at("[2001:db8::80]:80"), Tag: 8, Cookie: "01020304", Destination: at("[2001:db8::80]:80")},
	}})
	cmdtest.Golden(t, "client", b.OK("flow", "list", "--client", "--client-socket", socket))
	for _, tt := range [][]string{{"10.1.0.7"}, {"10.1.0.7:40001"}, {"10.0.0.0/8"}, {"--service", "shop"}} {
		var all []clientstatus.Connection
		out := b.OK(append([]string{"flow", "list", "--client", "--client-socket", socket, "-o", "json"}, tt...)...)
		if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 || all[0].Tag != 7 {
			t.Errorf("%v: %s, %v", tt, out, err)
		}
	}
	if r := b.Run("flow", "list", "--client", "--client-socket", socket, "--limit", "1"); r.Error != nil || r.Err != "manycast: 1 of 2 connections; --limit 0 lists all\n" {
		t.Errorf("%v %s", r.Error, r.Err)
	}
	b.Refused([]string{"want an address"}, "flow", "list", "--client", "--client-socket", socket, "somebody")
	b.Refused([]string{"client", "state"}, "flow", "list", "--client", "--state", "kept")
	b.Refused([]string{"is lbd client running"}, "flow", "list", "--client", "--client-socket", socket+"s")
}
