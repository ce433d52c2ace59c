package members_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkThousandMembers is one member's work for a second on a channel of a thousand that have met: 20 heartbeats each, one report. Bytes are
// of UDP payload. Beside it the bare cryptography: the MAC's two hashes of each frame, one of each heartbeat's chain, the signature of each
// report. All of it is the process' CPU time; sockets are not in it.
func BenchmarkThousandMembers(b *testing.B) {
	const count = 1000
	c := newCrowd(b, count)
	l := newListener(b, begin)
	for range 2 { // all are known then, and past their first second
		c.hear(b, l, c.second(b))
	}
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public, body := private.Public().(ed25519.PublicKey), make([]byte, 400)
	signature := ed25519.Sign(private, body)
	var sending, hearing, bare time.Duration
	frames, bytes := 0, 0
	for b.Loop() {
		began := cpuTime(b)
		said := c.second(b)
		between := cpuTime(b)
		c.hear(b, l, said)
		heard := cpuTime(b)
		for _, s := range said {
			sha256.Sum256(s.raw)
			sha256.Sum256(body[:96])
			sha256.Sum256(body[:64])
		}
		for range count {
			if !ed25519.Verify(public, body, signature) {
				b.Fatal("a good signature does not hold")
			}
		}
		sending, hearing, bare = sending+between-began, hearing+heard-between, bare+cpuTime(b)-heard
		for _, s := range said {
			frames, bytes = frames+1, bytes+len(s.raw)
		}
	}
	if n := l.Members.Members(); len(n) != count {
		b.Fatalf("%d members", len(n))
	}
	seconds := float64(b.N)
	b.ReportMetric(float64(frames)/seconds/count, "frames-sent/s")
	b.ReportMetric(float64(frames)/seconds, "frames-heard/s")
	b.ReportMetric(float64(bytes)/seconds/count, "bytes-sent/s")
	b.ReportMetric(float64(bytes)/seconds, "bytes-heard/s")
	b.ReportMetric(sending.Seconds()*1000/seconds/count, "ms-sending/s")
	b.ReportMetric(hearing.Seconds()*1000/seconds, "ms-hearing/s")
	b.ReportMetric(bare.Seconds()*1000/seconds, "ms-bare/s")
	b.ReportMetric(1000, "ms-core/s")
	b.ReportMetric(0, "ns/op")
}

// crowd is many who speak.
type crowd struct {
	all []*speaker
	now time.Time
}

type heard struct {
	at  time.Time
	by  *speaker
	raw []byte
}

func newCrowd(t testing.TB, count int) *crowd {
	c := &crowd{now: begin}
	for i := range count {
		c.all = append(c.all, server(t, fmt.Sprint("s", i), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), uint64(i+1)))
	}
	return c
}

// second is what all say within a second.
func (c *crowd) second(t testing.TB) (out []heard) {
	for end := c.now.Add(time.Second); c.now.Before(end); c.now = c.now.Add(time.Millisecond) {
		for _, s := range c.all {
			if c.now.Before(s.Next()) {
				continue
			}
			frames, _, err := s.Tick(c.now, c.now)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				out = append(out, heard{c.now, s, f})
			}
		}
	}
	return out
}

func (c *crowd) hear(t testing.TB, l *listener, said []heard) {
	for _, h := range said {
		if !h.at.Before(l.Next()) {
			l.Tick(h.at)
		}
		if _, err := l.Frame(h.at, h.at, "eth0", h.by.id.Address, h.raw); err != nil {
			t.Fatal(err)
		}
	}
}

// cpuTime is what the process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
