package load

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

var suffix8 = alloc.Slots{By: alloc.Suffix, Bits: 8}

// metered feeds a Meter a second at a time.
type metered struct {
	Meter
	now time.Time
	r   Reading
}

func newMetered() *metered {
	return &metered{now: time.Unix(1000, 0), r: Reading{Services: map[string]ServiceReading{"web": {Slots: suffix8, Inbound: 0.5}}}}
}

// second takes a reading in which change has made counters grow.
func (m *metered) second(change func(web *ServiceReading, machine *MachineReading)) alloc.Load {
	web := m.r.Services["web"]
	web.Senders = nil
	change(&web, &m.r.Machine)
	m.r.Services = map[string]ServiceReading{"web": web}
	m.now = m.now.Add(time.Second)
	m.Take(m.now, m.r)
	return m.Loads()["web"]
}

// steady does 1,000 accepts and 5 MB a second, on a quarter of the CPU.
func steady(web *ServiceReading, machine *MachineReading) {
	web.Traffic.Opened += 1000
	web.Traffic.Bytes += 5e6
	web.Traffic.Packets += 20000
	machine.Busy, machine.Total = machine.Busy+50, machine.Total+200
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6*max(math.Abs(b), 1) }

func TestMeterSaysNothingBeforeItKnowsRates(t *testing.T) {
	m := newMetered()
	m.second(steady)
	if loads := m.Loads(); len(loads) != 0 {
		t.Errorf("after one reading %+v", loads)
	}
	if l := m.second(steady); !near(l.Accepts, 1000) || !near(l.Bytes, 5e6) || !near(l.CPU, 0.25) {
		t.Errorf("after two %+v", l)
	}
	// The same moment again, and an earlier one, change nothing.
	for _, back := range []time.Duration{0, time.Hour} {
		m.r.Services["web"] = ServiceReading{}
		m.Take(m.now.Add(-back), m.r)
		if l := m.Loads()["web"]; !near(l.Accepts, 1000) {
			t.Errorf("%+v", l)
		}
	}
}

// TestMeterSmooths: of a step two thirds are seen after five seconds, 95 % after fifteen.
func TestMeterSmooths(t *testing.T) {
	m := newMetered()
	for range 10 {
		m.second(steady)
	}
	full := func(web *ServiceReading, machine *MachineReading) {
		steady(web, machine)
		machine.Busy += 150
		web.Traffic.Opened += 1000
		web.Sockets = dataplane.Sockets{Connections: 700, Waiting: 100, Backlog: 128}
	}
	for second := 1; second <= 15; second++ {
		l := m.second(full)
		seen := 1 - math.Exp(-float64(second)/5)
		if !near(l.Accepts, 1000+1000*seen) || !near(l.CPU, 0.25+0.75*seen) || math.Abs(float64(l.Queue)-100*seen) > 0.5+1e-9 || l.Connections != 700 {
			t.Errorf("after %d s %+v", second, l)
		}
	}
}

// TestMeterSurvivesCountersThatBeginAnew: a data plane that was set up anew counts from 0; a service that was gone and is back begins
// as a new one.
func TestMeterSurvivesCountersThatBeginAnew(t *testing.T) {
	m := newMetered()
	for range 10 {
		m.second(steady)
	}
	for range 10 {
		l := m.second(func(web *ServiceReading, machine *MachineReading) {
			web.Traffic = dataplane.Traffic{Opened: 1000, Bytes: 5e6, Packets: 20000}
			machine.Busy, machine.Total = 0, 0
		})
		if l.Accepts < 999 || l.Accepts > 1001 || l.Bytes > 5.1e6 || !near(l.CPU, 0.25) {
			t.Fatalf("%+v", l)
		}
		m.second(func(web *ServiceReading, machine *MachineReading) { steady(web, machine) })
	}
	was := m.r.Services
	m.r.Services = nil
	m.now = m.now.Add(time.Second)
	m.Take(m.now, m.r)
	m.r.Services = was
	if m.second(steady); len(m.Loads()) != 0 {
		t.Errorf("a service that was gone: %+v", m.Loads())
	}
}

func TestMeterPassesTheApplicationsWordOn(t *testing.T) {
	m := newMetered()
	m.second(steady)
	said := 2.0
	m.r.Word = Word{Load: &said, Wanted: []portion.Portion{portion.MustParse("10.0.0.0/8")}}
	if l := m.second(steady); l.Application == nil || *l.Application != 2 || len(l.Wanted) != 1 {
		t.Errorf("%+v", l)
	}
	m.r.Word = Word{}
	if l := m.second(steady); l.Application != nil || l.Wanted != nil {
		t.Errorf("when it has expired %+v", l)
	}
	less := 1.0
	m.r.Word.Load = &less
	if l := m.second(steady); l.Application == nil || *l.Application != 1 {
		t.Errorf("what it said before counts still: %+v", l)
	}
}

// sending are seconds in which users send so many packets each, as many again going back.
func sending(m *metered, seconds int, packets map[string]uint64, unseen uint64) []alloc.Hot {
	var l alloc.Load
	for range seconds {
		l = m.second(func(web *ServiceReading, _ *MachineReading) {
			all := unseen
			for user, n := range packets {
				web.Senders = append(web.Senders, dataplane.Sender{User: netip.MustParseAddr(user), Packets: n})
				all += n
			}
			web.Traffic.Packets += 2 * all
		})
	}
	return l.Hot
}

func checkHot(t *testing.T, got []alloc.Hot, want ...alloc.Hot) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("hot: %v, want %v", got, want)
	}
	for i, h := range got {
		if h.Portion != want[i].Portion || math.Abs(h.Share-want[i].Share) > 0.005 {
			t.Errorf("hot %d: %v %.3f, want %v %.3f", i, h.Portion, h.Share, want[i].Portion, want[i].Share)
		}
	}
}

func hot(text string, share float64) alloc.Hot {
	return alloc.Hot{Portion: portion.MustParse(text), Share: share}
}

// TestHotSlots: one user has most of a slot; another slot is shared evenly; the rest is spread, partly unseen.
func TestHotSlots(t *testing.T) {
	m := newMetered()
	packets := map[string]uint64{"192.0.2.7": 4000, "198.51.100.7": 100}
	for _, user := range []string{"10.0.0.9", "10.0.1.9", "10.0.2.9", "10.0.3.9"} {
		packets[user] = 500
	}
	packets["10.0.2.9"] = 600
	m.second(steady)
	got := sending(m, 300, packets, 3800) // 10,000 a second in all
	checkHot(t, got, hot("0.0.0.7/0.0.0.255", 0.41), hot("192.0.2.7", 0.40), hot("0.0.0.9/0.0.0.255", 0.21),
		hot("0.0.0.9/0.0.1.255", 0.11), hot("10.0.2.9", 0.06))
	for _, h := range got[1:] {
		if !got[0].Portion.Covers(h.Portion) && !got[2].Portion.Covers(h.Portion) {
			t.Errorf("%v is in no slot that is hot", h.Portion)
		}
	}
	// After half a minute of other traffic a third of it is left, after two minutes nothing.
	checkHot(t, sending(m, 30, map[string]uint64{"10.0.0.1": 1}, 10000)[:1], hot("0.0.0.7/0.0.0.255", 0.41/math.E))
	checkHot(t, sending(m, 90, map[string]uint64{"10.0.0.1": 1}, 10000))
}

// A NAT that is split is in no slot, however heavy it is.
func TestSplitUsersMakeNoSlotHot(t *testing.T) {
	m := newMetered()
	m.r.Services["web"] = ServiceReading{Slots: suffix8, Split: steer.Split{netip.MustParsePrefix("203.0.113.0/24")}, Inbound: 0.5}
	m.second(steady)
	got := sending(m, 60, map[string]uint64{"203.0.113.7": 6000, "10.0.0.1": 1000}, 3000)
	checkHot(t, got, hot("0.0.0.1/0.0.0.255", 0.1), hot("10.0.0.1", 0.1))
}

func TestHotSlotsByPrefix(t *testing.T) {
	m := newMetered()
	m.r.Services["web"] = ServiceReading{Slots: alloc.Slots{By: alloc.Prefix, Bits: 8}, Inbound: 0.5}
	m.second(steady)
	got := sending(m, 60, map[string]uint64{"10.0.0.1": 3000, "10.128.0.1": 2000}, 5000)
	checkHot(t, got, hot("10.0.0.0/8", 0.5), hot("10.0.0.1", 0.3))
}

// TestHotIsBounded: of many users none counts much, and no more are remembered than there is room for; no more portions are named
// than a report has room for; and of too few packets nothing is said.
func TestHotIsBounded(t *testing.T) {
	m := newMetered()
	m.second(steady)
	if got := sending(m, 1, map[string]uint64{"192.0.2.7": 500}, 0); len(got) != 0 {
		t.Errorf("of 500 packets it is said %v", got)
	}
	many := map[string]uint64{}
	for i := range 20000 {
		many[netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()] = 16
	}
	if got := sending(m, 20, many, 0); len(got) != 0 {
		t.Errorf("of 20,000 users alike it is said %v", got)
	}
	if n := len(m.services["web"].senders.users); n > maxUsers {
		t.Errorf("%d users are remembered", n)
	}
	m = newMetered()
	m.second(steady)
	few := map[string]uint64{}
	for i := range 18 {
		few[netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String()] = 1000
	}
	got := sending(m, 60, few, 0)
	if len(got) != maxHot {
		t.Fatalf("%d portions, want %d", len(got), maxHot)
	}
	for i, h := range got {
		if i > 0 && h.Share > got[i-1].Share {
			t.Errorf("portion %d is heavier than the one before", i)
		}
	}
}

// BenchmarkMeter takes a second of a busy service with many small slots.
func BenchmarkMeter(b *testing.B) {
	m := newMetered()
	m.r.Services["web"] = ServiceReading{Slots: alloc.Slots{By: alloc.Suffix, Bits: alloc.MaxBits}, Inbound: 0.5}
	var sample []dataplane.Sender
	for i := range 4096 {
		sample = append(sample, dataplane.Sender{User: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Packets: 16})
	}
	for b.Loop() {
		m.second(func(web *ServiceReading, _ *MachineReading) { web.Senders = sample })
	}
}
