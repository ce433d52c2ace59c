package service

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/igmp"
)

func TestPackRecords(t *testing.T) {
	var many []netip.Addr
	for i := range 1000 {
		many = append(many, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
	}
	reports := packRecords([]igmp.Record{
		{Type: igmp.ModeIsInclude, Group: public, Sources: many},
		{Type: igmp.ModeIsExclude, Group: private, Sources: many},
	}, 1500)
	got := 0
	for _, r := range reports {
		data, err := igmp.Marshal(r)
		if err != nil || len(data) > 1500-ipHeaderBytes {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		for _, rec := range r.Records {
			if rec.Type == igmp.ModeIsInclude {
				got += len(rec.Sources)
			}
		}
	}
	if got != 1000 {
		t.Fatalf("%d sources told, want 1000", got)
	}
}

func FuzzParseIPv4(f *testing.F) {
	f.Add([]byte{0x46, 0xc0, 0, 32, 0, 0, 0x40, 0, 1, 2, 0, 0, 10, 3, 0, 11, 224, 0, 0, 22, 0x94, 4, 0, 0, 0x16, 0, 0, 0, 225, 1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseIPv4(b)
		if err == nil && (len(p.Payload) > len(b) || !p.Source.Is4()) {
			t.Fatalf("%+v of %d bytes", p, len(b))
		}
	})
}

func FuzzParseSnapshot(f *testing.F) {
	f.Add([]byte(`{"version":1,"boot_id":"x","membership":{"owners":[{"requester":"10.3.0.1","owner":1}],"private":[{"group":"239.1.1.1","term":1,"members":[]}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parseSnapshot(data); err != nil && strings.TrimSpace(err.Error()) == "" {
			t.Fatal("error without text")
		}
	})
}
