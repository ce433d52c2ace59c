package service

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// withFECs has a session with the other, which binds a label to each of n routes that lead to it.
func withFECs(t testing.TB, n int, metric uint32) *Service {
	t.Helper()
	s, c := passive(t, nil), &recorder{remote: addr("9.9.9.9")}
	greet(s, false)
	connect(s, c)
	s.event(start, transport.Received{Conn: c, Sender: other, Messages: []transport.Message{{Message: wire.KeepAlive{}}}})
	change := routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.0.1/24")}, Routes: map[netip.Prefix]*routes.Route{}}
	for i := range n {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		change.Routes[p] = via("10.0.0.9", 2)
		change.Routes[p].Metric = metric
		s.event(start, transport.Received{Conn: c, Sender: other, Messages: []transport.Message{{Message: wire.LabelMapping{FEC: wire.FEC{wire.Prefix{Prefix: p}}, Label: 1000}}}})
	}
	s.routesChanged(start, change)
	s.flush(start)
	return s
}

// BenchmarkAsk is how long a question holds up the loop of a router with 100,000 FECs.
func BenchmarkAsk(b *testing.B) {
	for name, metric := range map[string]uint32{"": 20, " without a metric": 0} {
		s := withFECs(b, 100_000, metric)
		for what, request := range map[string]string{
			"status": `{"status": {}}`, "first FECs": `{"fecs": {}}`, "last FECs": `{"fecs": {"after": "20.1.134.0/32"}}`, "ILM": `{"table": {}}`, "FTN": `{"table": {"ftn": true}}`,
			"one FEC": `{"fecs": {"address": "20.0.1.1"}}`, "step": `{"step": {"address": "20.0.1.1"}}`,
		} {
			b.Run(what+name, func(b *testing.B) {
				r := &tdpdv1.Request{}
				if err := protojson.Unmarshal([]byte(request), r); err != nil {
					b.Fatal(err)
				}
				answer := &tdpdv1.Answer{}
				for b.Loop() {
					work, err := s.asked(r, answer)
					if err == nil {
						err = work(start)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(proto.Size(answer)), "B/answer")
			})
		}
	}
}

// FuzzRequest asks anything, as JSON and as the bus has it.
func FuzzRequest(f *testing.F) {
	for _, request := range []string{
		`{"status": {}}`, `{"fecs": {"after": "10.0.0.0/8", "limit": 1, "servers": true}}`, `{"fecs": {"prefix": "::/0"}}`, `{"fecs": {"address": "20.0.0.1"}}`,
		`{"table": {"after": "17"}}`, `{"table": {"ftn": true, "after": "1.2.3.4"}}`, `{"step": {"label": 16}}`, `{"step": {"label": 2, "address": "::1"}}`,
		`{"clear": {"neighbor": "9.9.9.9:0"}}`,
	} {
		r := &tdpdv1.Request{}
		if err := protojson.Unmarshal([]byte(request), r); err != nil {
			f.Fatal(err)
		}
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add([]byte(request))
	}
	s := withFECs(f, 20, 20)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, decode := range []func([]byte, proto.Message) error{protojson.Unmarshal, proto.Unmarshal} {
			r, answer := &tdpdv1.Request{}, &tdpdv1.Answer{}
			if decode(data, r) != nil {
				continue
			}
			work, err := s.asked(r, answer)
			if err != nil {
				continue
			}
			if err := work(start); err == nil && answer.GetAbout() == nil {
				t.Errorf("%v: no answer", r)
			}
		}
	})
}
