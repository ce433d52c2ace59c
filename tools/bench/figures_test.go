package main

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/lab/probe"
)

const output = `goos: linux
BenchmarkCheckAll-2  	   10000	     1 joins/s	     1 verifies/s
BenchmarkCheck     	   10000	     90000 ns/op	     11000 joins/s	     12000 verifies/s
BenchmarkCheck-2     	   10000	     80000 ns/op	     13000 joins/s	     13000 verifies/s
BenchmarkCheck-2      	   10000	     78000 ns/op	      5000 joins/s	     12800 verifies/s
PASS
`

func TestResultsAreOfTheMedianRun(t *testing.T) {
	s := suite{bench: "Check", figures: []figure{{name: "checked", unit: "joins/s", metric: "joins/s", against: "raw", versus: "verifies/s"}}}
	rows, err := s.results(parse(strings.NewReader(output), "Check"))
	if err != nil {
		t.Fatal(err)
	}
	want := result{"checked", 11000, "joins/s", "raw", 12000, 11.0 / 12}
	if r := rows[0]; len(rows) != 1 || math.Abs(r.Ratio-want.Ratio) > 1e-9 || r.Value != want.Value || r.AgainstValue != want.AgainstValue {
		t.Errorf("got %+v, want %+v", rows, want)
	}
}

func TestAMissingFigureIsAnError(t *testing.T) {
	s := suite{bench: "Check", figures: []figure{{name: "x", metric: "joins/s", versus: "yards"}}}
	if _, err := s.results(parse(strings.NewReader(output), "Check")); err == nil || !strings.Contains(err.Error(), "yards") {
		t.Errorf("missing metric: %v", err)
	}
	if _, err := s.results(nil); err == nil {
		t.Error("a benchmark that did not run")
	}
}

func TestLastPackets(t *testing.T) {
	start := time.Now().Add(-time.Hour)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	owners := func(owner ...uint16) alloc.Allocation { // by the user's last two bits
		return alloc.Allocation{Slots: alloc.Slots{By: alloc.Suffix, Bits: 2}, Servers: []string{"s1", "s2", "s3"}, Owner: owner, Standby: make([]uint16, 4)}
	}
	epochs := []allocation{{owners(0, 0, 1, 2), at(0)}, {owners(1, 0, 2, 2), at(100)}, {owners(0, 0, 2, 2), at(200)}, {owners(1, 0, 2, 2), at(300)}}
	came := func(ms int, user byte) probe.Arrival {
		return probe.Arrival{At: at(ms), User: netip.AddrFrom4([4]byte{10, 0, 0, user})}
	}
	links := map[string][]probe.Arrival{
		"s1": {came(90, 0), came(112, 0), came(150, 1), came(240, 0)},
		"s2": {came(160, 2), came(190, 0), came(207, 0)},
	}
	got := lastPackets(links, epochs)
	if !slices.Equal(got, []time.Duration{0, 7 * time.Millisecond, 12 * time.Millisecond}) {
		t.Errorf("got %v, want 12 ms of the first move, 7 ms of the second, nothing behind the commit of the third", got)
	}
}

func TestLostAreThoseThatCameNowhere(t *testing.T) {
	j := journey{sent: 4, links: map[string][]probe.Arrival{"s1": {{Number: 0}, {Number: 9}}, "s2": {{Number: 0}, {Number: 3}}}}
	if n := j.lost(); n != 2 {
		t.Errorf("%d lost, want 2", n)
	}
}
