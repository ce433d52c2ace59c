package service

import (
	"crypto/ed25519"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/igmpd/internal/membership"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/records"
)

// benchJoins is how many packets with a signed join each there are, from 16 members in turn; then the router begins anew, as
// they would be duplicates.
const benchJoins, benchMembers, benchTurn = 4096, 16, 16

// BenchmarkAdmission takes packets with signed joins of some 600 bytes the whole way from the packet to the state of the group:
// rate, checksum, codec, all of Fig 6, membership. Beside it the bare Ed25519 verification of as many bytes, in short turns of
// one run so that both meet the same machine. Seconds are the process' CPU time, garbage collection included: what other
// processes take away hits one turn or the other.
func BenchmarkAdmission(b *testing.B) {
	r := newBenchRouter(b)
	packets, body := benchPackets(b, r.now)
	public, signature := groupKey.Public().(ed25519.PublicKey), ed25519.Sign(groupKey, body)
	var admitting, verifying time.Duration
	turns := 0
	for b.Loop() {
		at := turns * benchTurn % (benchJoins - benchMembers)
		if at == 0 {
			r.begin(packets[:benchMembers])
		}
		turn := packets[benchMembers+at:][:benchTurn]
		began := cpuTime(b)
		for _, p := range turn {
			r.service.packet(r.now, p)
		}
		between := cpuTime(b)
		for range benchTurn {
			if !ed25519.Verify(public, body, signature) {
				b.Fatal("a good signature does not hold")
			}
		}
		admitting, verifying = admitting+between-began, verifying+cpuTime(b)-between
		r.check(b, uint64(benchMembers+at+benchTurn))
		turns++
	}
	n := float64(benchTurn * turns)
	b.ReportMetric(n/admitting.Seconds(), "joins/s")
	b.ReportMetric(n/verifying.Seconds(), "verifies/s")
	b.ReportMetric(verifying.Seconds()/admitting.Seconds(), "joins/verify")
	b.ReportMetric(float64(len(packets[0].Payload)), "bytes")
}

// cpuTime is what the process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// benchRouter is a Service whose loop is the benchmark.
type benchRouter struct {
	service *Service
	now     time.Time // of all packets
}

func newBenchRouter(b *testing.B) *benchRouter {
	cfg := testConfig(b.TempDir())
	cfg.Admission.RatePerPort, cfg.Admission.BurstPerPort = 1e9, 1e9
	s, err := New(Options{
		Config: cfg, Network: newFakeNetwork(), Forwarder: &kernel.Fake{}, Keys: &fakeKeys{record: groupRecord()},
		Log: slog.New(slog.DiscardHandler), BootID: "boot",
	})
	if err != nil {
		b.Fatal(err)
	}
	r := &benchRouter{s, time.Now()}
	s.cache.Key(r.now, private, 0) // what nobody asked for is not kept
	s.cache.Put(r.now, records.Answer{Address: private, Record: groupRecord(), TTL: time.Hour})
	return r
}

// begin forgets all joins, and takes the first one of each member, whose set is compared with all others'.
func (r *benchRouter) begin(first []Packet) {
	s := r.service
	s.checker = admission.New(s.Config.Admission.Limits(), s.cache, s.portTo, r.now)
	s.table = membership.New(s.Config.Membership())
	s.stats = newStats(s.Log)
	s.refreshPorts(r.now)
	for _, p := range first {
		s.packet(r.now, p)
	}
}

// check makes sure that all joins so far were admitted, and drops the relays that the loop would have sent.
func (r *benchRouter) check(b *testing.B, want uint64) {
	if s := r.service; s.stats.admitted != want {
		b.Fatalf("%d joins of %d admitted, refused: %v", s.stats.admitted, want, s.stats.refused)
	}
	r.service.dropRelays()
}

// benchPackets makes the packets, and what is signed of one of them. Each member has 55 of 1,024 slots.
func benchPackets(b *testing.B, now time.Time) (packets []Packet, body []byte) {
	for i := range benchJoins {
		member := i % benchMembers
		j := join.Join{
			Group: private, Requester: netip.AddrFrom4([4]byte{10, 3, 0, byte(20 + member)}), Link: lan, Time: now.Add(time.Duration(i)),
			Epoch: epoch.Epoch{Term: 1, Number: 1}, Part: 1, Parts: 1, KeyID: groupRecord().Keys[0].ID,
		}
		binary.BigEndian.PutUint64(j.Random[:], uint64(i))
		for n := range 55 {
			slot := n*benchMembers + member
			j.Owner.Permit = append(j.Owner.Permit, portion.Portion{
				Addr: netip.AddrFrom4([4]byte{0, 0, byte(slot >> 8), byte(slot)}), Mask: netip.AddrFrom4([4]byte{0, 0, 3, 255}),
			})
		}
		s, err := join.Sign(j, groupKey)
		if err != nil {
			b.Fatal(err)
		}
		payload, err := igmp.Marshal(join.Report(s))
		if err != nil {
			b.Fatal(err)
		}
		body = s.Raw[:len(s.Raw)-ed25519.SignatureSize]
		packets = append(packets, Packet{
			Port: "lan", Source: j.Requester, Destination: allRouters, TTL: 1, RouterAlert: true, Payload: payload, At: now,
		})
	}
	return packets, body
}
