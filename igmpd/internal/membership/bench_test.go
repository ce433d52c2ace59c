package membership

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

// crowd is an epoch of many servers: slots of the address's last bits, dealt out in turn from where the epoch says.
type crowd struct{ servers, slots int }

func (c crowd) requester(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 5, byte(i >> 8), byte(i)})
}

func (c crowd) join(at time.Time, i int, number uint64) join.Signed {
	var own, standby portion.Set
	first := (c.servers + i - int(number)%c.servers) % c.servers // a slot of each server goes on to the next one
	for slot := first; slot < c.slots; slot += c.servers {
		own.Permit = append(own.Permit, c.slot(slot))
	}
	for slot := (first + 1) % c.servers; slot < c.slots; slot += c.servers {
		standby.Permit = append(standby.Permit, c.slot(slot))
	}
	return withStandby(extended(at, c.requester(i), 1, number, own), standby)
}

func (c crowd) slot(i int) portion.Portion {
	word := func(v int) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(v))
		return netip.AddrFrom4(b)
	}
	return portion.Portion{Addr: word(i), Mask: word(1<<bits.Len(uint(c.slots-1)) - 1)}
}

// BenchmarkEpoch is a router's work when all servers of a group come with the sets of a new epoch, one after the other, while the forwarding
// state is asked for after each hundred; when one of them goes silent; and when one is silent whose joins it never heard. Beside it the bare verification of as many signatures. All
// of it is the process' CPU time.
func BenchmarkEpoch(b *testing.B) {
	for _, c := range []crowd{{100, 4096}, {1000, 65536}} {
		b.Run(fmt.Sprint("servers=", c.servers), c.benchmark)
	}
}

func (c crowd) benchmark(b *testing.B) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public, body := private.Public().(ed25519.PublicKey), make([]byte, 600)
	signature := ed25519.Sign(private, body)
	var joining, failing, missing, verifying time.Duration
	table, now := New(testConfig()), start
	for n := range uint64(b.N + 1) { // the first one is for all to be there
		now = now.Add(time.Second)
		joins := make([]join.Signed, c.servers)
		for i := range joins {
			joins[i] = c.join(now, i, n+1)
		}
		began := cpuTime(b)
		for i, j := range joins {
			if _, err := table.Join(now, "lan", j); err != nil {
				b.Fatal(err)
			}
			if i%100 == 99 {
				table.Settle()
			}
		}
		joined := cpuTime(b)
		table.SetHealth(now, c.requester(1), Silent)
		table.Settle()
		failed := cpuTime(b)
		table.SetHealth(now, c.requester(1), Available)
		table.Settle()
		well := cpuTime(b)
		table.SetHealth(now, c.requester(c.servers), Silent)
		table.Settle()
		missed := cpuTime(b)
		for range c.servers {
			if !ed25519.Verify(public, body, signature) {
				b.Fatal("a good signature does not hold")
			}
		}
		if n > 0 {
			joining, failing = joining+joined-began, failing+failed-joined
			missing, verifying = missing+missed-well, verifying+cpuTime(b)-missed
		}
		table.SetHealth(now, c.requester(c.servers), Available)
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(ms(joining), "ms/epoch")
	b.ReportMetric(ms(failing), "ms/failure")
	b.ReportMetric(ms(missing), "ms/missing")
	b.ReportMetric(ms(verifying), "ms/verifying")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what the process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
