package rtnl

import (
	"net/netip"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRoutesComeBack(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	for _, r := range []Route{
		{Label: 1<<20 - 1, Hops: []Hop{{[]uint32{16, 17}, v4, 3}}},
		{Label: 16, Hops: []Hop{{nil, v6, 3}, {[]uint32{18}, v4, 4}}},
		{Label: 16, Hops: []Hop{{Interface: 1}}},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Metric: 1, Hops: []Hop{{[]uint32{16, 17, 18}, v4, 3}}},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Metric: 1, Hops: []Hop{{[]uint32{16}, v6, 3}, {nil, v4, 4}}},
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Hops: []Hop{{nil, v4, 3}}},
		{Prefix: netip.MustParsePrefix("2001:db8::/32"), Metric: 1024, Hops: []Hop{{[]uint32{0}, v6, 3}, {[]uint32{2}, v6, 4}}},
		{Prefix: netip.MustParsePrefix("::/0"), Metric: 1, Hops: []Hop{{[]uint32{16}, v4, 3}, {[]uint32{17}, v6, 4}}},
	} {
		for _, table := range []uint32{unix.RT_TABLE_MAIN, 77001} {
			r.Table, r.Protocol, r.Type = table, 77, unix.RTN_UNICAST
			got, err := ParseRoute(r.append(nil, false))
			if err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("%+v came back as %+v, %v", r, got, err)
			}
		}
	}
}

func TestRulesComeBack(t *testing.T) {
	for _, r := range []Rule{
		{Family: unix.AF_INET, Priority: 7700, Action: ActGoto, Not: true, Mark: 1 << 30, Mask: 1 << 30, Goto: 7702, Protocol: 77},
		{Family: unix.AF_INET6, Priority: 7701, Action: ActTable, Mark: 1<<30 | 5, Mask: 1<<30 | 0xff, Table: 77005, Protocol: 77},
		{Family: unix.AF_INET, Priority: 7702, Action: ActNop, Protocol: 77},
		{Family: unix.AF_INET, Priority: 7703, Action: ActTable, Table: unix.RT_TABLE_MAIN},
	} {
		if got, err := ParseRule(r.append(nil)); err != nil || got != r {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	r := Route{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Hops: []Hop{{[]uint32{16}, netip.MustParseAddr("10.0.0.1"), 3}, {nil, netip.MustParseAddr("fd00::1"), 4}}}
	f.Add(r.append(nil, false))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ParseRoute(data) // must not panic
		_, _ = ParseRule(data)
		_ = messages(data, func(m Message) error {
			_, err := parseAnswer(m)
			return err
		})
	})
}
