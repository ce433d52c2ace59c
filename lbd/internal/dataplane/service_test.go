package dataplane

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestCheckServices(t *testing.T) {
	web := []Port{tcp(80)}
	tests := []struct {
		name string
		in   []DirectorService
		want string // "" is no error
	}{
		{"none", nil, ""},
		{"shared VIP", []DirectorService{{VIP: addr("192.0.2.1"), Group: addr("239.0.0.1"), Ports: web}, {VIP: addr("192.0.2.1"), Group: addr("239.0.0.2"), Ports: []Port{udp(80)}}}, ""},
		{"taken port", []DirectorService{{VIP: addr("192.0.2.1"), Group: addr("239.0.0.1"), Ports: web}, {VIP: addr("192.0.2.1"), Group: addr("239.0.0.2"), Ports: web}},
			"port tcp/80 goes to group 239.0.0.1 and to 239.0.0.2"},
		{"multicast VIP", []DirectorService{{VIP: addr("239.0.0.2"), Group: addr("239.0.0.1"), Ports: web}}, "VIP 239.0.0.2: not an IPv4 unicast address"},
		{"IPv6 VIP", []DirectorService{{VIP: addr("2001:db8::1"), Group: addr("239.0.0.1"), Ports: web}}, "not an IPv4 unicast"},
		{"no VIP", []DirectorService{{VIP: netip.Addr{}, Group: addr("239.0.0.1"), Ports: web}}, "not an IPv4 unicast"},
		{"unicast group", []DirectorService{{VIP: addr("192.0.2.1"), Group: addr("192.0.2.2"), Ports: web}}, "group 192.0.2.2 is not an IPv4 multicast"},
		{"no ports", []DirectorService{{VIP: addr("192.0.2.1"), Group: addr("239.0.0.1"), Ports: nil}}, "no ports"},
		{"port 0", []DirectorService{{VIP: addr("192.0.2.1"), Group: addr("239.0.0.1"), Ports: []Port{tcp(0)}}}, "port tcp/0"},
		{"strange protocol", []DirectorService{{VIP: addr("192.0.2.1"), Group: addr("239.0.0.1"), Ports: []Port{{Proto: "sctp", Number: 1}}}}, "want a number from 1 and tcp or udp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantError(t, checkDirector(tt.in), tt.want) })
	}
}

func TestCheckAgentWantsOneServiceAGroup(t *testing.T) {
	err := checkAgent([]AgentService{
		{VIP: addr("192.0.2.1"), Group: addr("239.0.0.1"), Ports: []Port{tcp(80)}},
		{VIP: addr("192.0.2.2"), Group: addr("239.0.0.1"), Ports: []Port{tcp(80)}},
	})
	wantError(t, err, "group 239.0.0.1 stands for 192.0.2.1 and for 192.0.2.2")
}

func TestFakeBehavesAsAPlane(t *testing.T) {
	f := NewFakeDirector()
	good := []DirectorService{{VIP: addr("192.0.2.1"), Group: addr("239.0.0.1"), Ports: []Port{tcp(80)}}}
	wantError(t, f.Set(good), "")
	wantError(t, f.Set([]DirectorService{{}}), "not an IPv4 unicast")
	f.Fail(errors.New("no kernel"))
	wantError(t, f.Set(nil), "no kernel")
	if got := f.Current(); len(got) != 1 || got[0].VIP != good[0].VIP {
		t.Errorf("current is %v, want %v: a failed Set changes nothing", got, good)
	}
	wantError(t, f.Close(true), "")
	if closed, kept := f.Closed(); !closed || !kept {
		t.Errorf("closed %t kept %t after Close(true)", closed, kept)
	}
	wantError(t, f.Set(good), "closed")
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error %v, want none", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v, want one that says %q", err, want)
	}
}

func tcp(number uint16) Port { return Port{Proto: "tcp", Number: number} }
func udp(number uint16) Port { return Port{Proto: "udp", Number: number} }

func TestRedirectIsChecked(t *testing.T) {
	f := NewFakeAgent()
	group, to := addr(webGroup), addr("10.0.0.2")
	if err := f.Redirect(group, 512, to); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a group of IPv6": f.Redirect(addr("2001:db8::1"), 1, to), "a share below 0": f.Redirect(group, -1, to),
		"a share above all": f.Redirect(group, ShedAll+1, to), "no server": f.Redirect(group, 1, netip.Addr{}), "a group as server": f.Redirect(group, 1, group),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if share, server, err := f.Redirecting(group); share != 512 || server != to || err != nil {
		t.Errorf("redirects %d to %s, %v", share, server, err)
	}
	if err := f.Redirect(group, 0, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if share, _, _ := f.Redirecting(group); share != 0 {
		t.Errorf("redirects %d", share)
	}
}
