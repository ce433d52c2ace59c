package server

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestUpdatesFromBeforeTheStartAreRefused(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		name           string
		signed, clocks time.Duration // after the start
		want           int
	}{
		{"signed before", -time.Second, time.Second, dns.RcodeRefused},
		{"signed after", time.Second, time.Second, dns.RcodeSuccess},
		{"the clock was an hour ahead at the start", -time.Hour, -time.Hour, dns.RcodeSuccess},
		{"and signed before it was set back", -time.Hour - time.Second, -time.Hour, dns.RcodeRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sig := &dns.TSIG{MAC: "00", Fudge: 300, TimeSigned: uint64(start.Add(tt.signed).Unix())}
			done := func() int { return dns.RcodeSuccess }
			if got := newReplays(start).once(sig, start.Add(tt.clocks), done); got != tt.want {
				t.Errorf("answered %s, want %s", dns.RcodeToString[got], dns.RcodeToString[tt.want])
			}
		})
	}
}
