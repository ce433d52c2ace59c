package store

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
)

func FuzzDecodeState(f *testing.F) {
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 3, Number: 9}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"s1", "s2"},
		Owner: []uint16{0, 1}, Standby: []uint16{1, alloc.None},
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")},
	}
	for _, s := range []State{{}, {Committed: a}, {Committed: a, Prepared: a}} {
		data, err := EncodeState("web", s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		committed, e, committedErr := DecodeCommitted(data)
		s, err := DecodeState(data)
		if err != nil {
			return
		}
		if committedErr != nil || e != s.Committed.Epoch || !committed.Same(s.Committed) {
			t.Fatalf("%+v is committed, alone it is %+v of %v, %v", s.Committed, committed, e, committedErr)
		}
		data, err = EncodeState("web", s)
		if err != nil {
			return // a name that is not UTF-8 never came from us
		}
		again, err := DecodeState(data)
		if err != nil || again.Committed.Epoch != s.Committed.Epoch || !again.Committed.Same(s.Committed) || !again.Prepared.Same(s.Prepared) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

func FuzzDecodeService(f *testing.F) {
	services, err := service.Parse([]byte("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\n"))
	if err != nil {
		f.Fatal(err)
	}
	data, err := proto.Marshal(service.ToProto(services[0]))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("web", data)
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		if s, err := decodeService(bus.Entry{Key: key, Value: data}); err == nil && (s.Name != key || s.Validate() != nil) {
			t.Errorf("%q became %+v", key, s)
		}
	})
}
