package pool

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// FuzzEntries reads a service with its pool from what lies in the buckets, and asks all that commands ask of it.
func FuzzEntries(f *testing.F) {
	services, err := service.Parse([]byte("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\n"))
	if err != nil {
		f.Fatal(err)
	}
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"s1"},
		Owner: []uint16{0, 0}, Standby: []uint16{alloc.None, alloc.None},
	}
	weight := uint32(3)
	var seeds [4][]byte
	for i, m := range []proto.Message{
		service.ToProto(services[0]), &allocv1.State{Committed: alloc.ToProto("web", a)},
		&allocv1.Registration{Service: "web", Name: "s1", Address: "10.0.0.1", Healthy: true, Weight: 1}, &allocv1.Operator{Weight: &weight},
	} {
		if seeds[i], err = proto.Marshal(m); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(seeds[0], seeds[1], seeds[2], seeds[3], int64(time.Second))
	f.Fuzz(func(t *testing.T, spec, state, registration, operator []byte, age int64) {
		l := loader{services: map[string]*Service{}, servers: map[string]*Server{}}
		now := time.Unix(1_700_000_000, 0)
		entry := func(key string, value []byte) bus.Entry {
			return bus.Entry{Key: key, Value: value, Revision: 1, Created: now.Add(-time.Duration(age))}
		}
		// What cannot be used is left out, as load does.
		_ = l.service(entry("web", spec))
		_ = l.allocation(entry("web", state))
		_ = l.registration(entry("web.s1", registration))
		_ = l.operator(entry("web.s1", operator))
		snap := &Snapshot{At: now}
		l.assemble(snap)
		for _, svc := range snap.Services {
			svc.Settled()
			for _, m := range svc.Servers {
				if share := svc.Share(m.Name); share < 0 || share > 1 {
					t.Errorf("%s has %v of the users", m.Name, share)
				}
				if m.Address != "" && !netip.MustParseAddr(m.Address).IsValid() || m.Weight < 0 || m.Weight > alloc.MaxWeight || m.Health() == "" {
					t.Errorf("server %+v", m)
				}
				svc.Users(m.Name)
			}
		}
	})
}
