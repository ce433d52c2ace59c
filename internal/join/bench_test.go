package join

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

// BenchmarkCheck sets the check of signed joins, from the IGMP message to the verdict of the signature, beside the bare
// Ed25519 verification of as many bytes, in turns of one run so that both meet the same machine.
func BenchmarkCheck(b *testing.B) {
	j := testJoin()
	j.Owner.Permit = slots(56)
	signed := mustSign(b, j)
	packet, err := igmp.Marshal(Report(signed))
	if err != nil {
		b.Fatal(err)
	}
	body := signed.Raw[:len(signed.Raw)-ed25519.SignatureSize]
	plain := ed25519.Sign(testKey, body)

	check := func() bool {
		m, err := igmp.Parse(packet)
		if err != nil {
			return false
		}
		joins, err := FromReport(m.(igmp.Report))
		return err == nil && len(joins) == 1 && joins[0].Verify(testPub)
	}
	raw := func() bool { return ed25519.Verify(testPub, body, plain) }

	var checking, verifying time.Duration
	turn := func(f func() bool) time.Duration {
		began := time.Now()
		for range 16 {
			if !f() {
				b.Fatal("a good join was refused")
			}
		}
		return time.Since(began)
	}
	b.ReportAllocs()
	turns := 0
	for b.Loop() {
		checking += turn(check)
		verifying += turn(raw)
		turns++
	}
	n := float64(16 * turns)
	b.ReportMetric(float64(len(packet)), "bytes")
	b.ReportMetric(n/checking.Seconds(), "joins/s")
	b.ReportMetric(n/verifying.Seconds(), "raw-verifies/s")
	b.ReportMetric(verifying.Seconds()/checking.Seconds(), "ratio")
}
