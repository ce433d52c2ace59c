package admission

import (
	"crypto/ed25519"
	"encoding/binary"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

// BenchmarkAdmission sets signed joins of some 600 bytes on their whole way, from the IGMP message through all of Fig 6, beside
// the bare Ed25519 verification of as many bytes, in turns of one run so that both meet the same machine.
func BenchmarkAdmission(b *testing.B) {
	now := start.Add(time.Second)
	const distinct = 4096 // joins; then the checker begins anew, as they would be duplicates
	packets := make([][]byte, distinct)
	var body []byte
	for i := range packets {
		j := testJoin(now.Add(time.Duration(i)))
		binary.BigEndian.PutUint64(j.Random[:], uint64(i))
		for n := range 55 {
			j.Owner.Permit = append(j.Owner.Permit, portion.MustParse("0.0.0.0/0.0.0.255"))
			j.Owner.Permit[n+1].Addr = portion.MustParse("0.0.0.255/0.0.0.255").Addr
		}
		s := sign(b, j)
		body = s.Raw[:len(s.Raw)-ed25519.SignatureSize]
		packet, err := igmp.Marshal(join.Report(s))
		if err != nil {
			b.Fatal(err)
		}
		packets[i] = packet
	}
	keys, port := &fakeKeys{status: KeyKnown}, testPort()
	cfg := testConfig()
	cfg.ReplayMax = 65536
	var c *Checker
	done := 0
	admit := func() bool {
		if done%distinct == 0 {
			c = New(cfg, keys, testRoutes, start)
		}
		m, err := igmp.Parse(packets[done%distinct])
		done++
		if err != nil {
			return false
		}
		joins, err := join.FromReport(m.(igmp.Report))
		if err != nil || len(joins) != 1 {
			return false
		}
		return c.Check(now, Arrival{joins[0], port, joins[0].Requester, now}).Outcome == Admitted
	}
	public, plain := key.Public().(ed25519.PublicKey), ed25519.Sign(key, body)
	verify := func() bool { return ed25519.Verify(public, body, plain) }

	turn := func(f func() bool) time.Duration {
		began := time.Now()
		for range 16 {
			if !f() {
				b.Fatal("a good join was refused")
			}
		}
		return time.Since(began)
	}
	var admitting, verifying time.Duration
	turns := 0
	for b.Loop() {
		admitting += turn(admit)
		verifying += turn(verify)
		turns++
	}
	n := float64(16 * turns)
	b.ReportMetric(n/admitting.Seconds(), "joins/s")
	b.ReportMetric(n/verifying.Seconds(), "raw-verifies/s")
	b.ReportMetric(verifying.Seconds()/admitting.Seconds(), "ratio")
}
