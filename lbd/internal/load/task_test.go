package load

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

var web = agent.Serving{
	Service: service.Service{
		Name: "web", VIP: netip.MustParseAddr("192.0.2.80"), Group: netip.MustParseAddr("239.80.80.80"), Slots: suffix8,
		Ports: []service.Port{{Proto: "tcp", Number: 80}, {Proto: "udp", Number: 80}}, Balance: policy.Balance{Shed: 0.9},
	},
	Servers: []string{"s1", "s2"},
}

// bench is a Task with fakes around it.
type bench struct {
	task  *Task
	plane *dataplane.FakeAgent
	log   *logged

	mu      sync.Mutex
	cpu     float64
	fail    error
	counted int
	takes   time.Duration // a count of sockets
	serving []agent.Serving
	said    map[string]alloc.Load
}

func newBench(channel control.Channel) *bench {
	b := &bench{plane: dataplane.NewFakeAgent(), log: &logged{}, serving: []agent.Serving{web}}
	var busy, total float64
	b.task = NewTask(DefaultConfig(), "s1", Sources{
		Plane: b.plane, Channel: channel,
		Machine: func(time.Time) (MachineReading, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			busy, total = busy+100*b.cpu, total+100
			return MachineReading{Busy: busy, Total: total}, b.fail
		},
		Sockets: func(_ context.Context, local []netip.AddrPort) ([]dataplane.Sockets, error) {
			b.mu.Lock()
			takes := b.takes
			b.mu.Unlock()
			time.Sleep(takes)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.counted++
			out := make([]dataplane.Sockets, len(local))
			for i := range out {
				out[i] = dataplane.Sockets{Connections: 7, Backlog: 128}
			}
			return out, nil
		},
	}, b.log.logger())
	b.plane.SetTraffic(map[netip.Addr]dataplane.Traffic{web.Group: {}}, nil)
	return b
}

// run measures until the test's bubble ends.
func (b *bench) run(ctx context.Context) {
	go b.task.Measure(ctx, func() []agent.Serving {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.serving
	}, func(loads map[string]alloc.Load) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.said = loads
	})
}

func (b *bench) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *bench) counts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counted
}

func (b *bench) load() (l alloc.Load, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok = b.said["web"]
	return l, ok
}

func (b *bench) shed(t *testing.T) int {
	t.Helper()
	share, err := b.plane.Shedding(web.Group)
	if err != nil {
		t.Fatal(err)
	}
	return share
}

func TestTaskReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.cpu = 0.5
		b.run(t.Context())
		synctest.Wait()
		if l, ok := b.load(); ok {
			t.Errorf("before there are rates: %+v", l)
		}
		b.plane.SetTraffic(map[netip.Addr]dataplane.Traffic{web.Group: {Packets: 4000, Bytes: 1e6, Opened: 100, Refused: 3}},
			map[netip.Addr][]dataplane.Sender{web.Group: {{User: netip.MustParseAddr("198.51.100.7"), Packets: 2000}}})
		b.plane.SetCounters(dataplane.AgentCounters{Delivered: 2000})
		time.Sleep(time.Second)
		synctest.Wait()
		l, _ := b.load()
		if !near(l.Accepts, 100) || !near(l.Bytes, 1e6) || !near(l.CPU, 0.5) || l.Connections != 7 || len(l.Hot) != 2 || l.Hot[0].Share != 1 {
			t.Errorf("said %+v", l)
		}
		got := gather(t, b.task)
		for name, want := range map[string]float64{
			"manycast_agent_load_ratio": 0.5, "manycast_agent_load_connections": 7, "manycast_agent_load_accepts_per_second": 100,
			"manycast_agent_load_hot_portions": 2, "manycast_agent_shed_ratio": 0, "manycast_agent_service_refused_total": 3,
		} {
			if value, ok := got[name]; !ok || !near(value, want) {
				t.Errorf("%s is %v, want %v", name, value, want)
			}
		}
	})
}

// gather is what Prometheus sees, by name.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			values[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

// TestTaskSaysOnceWhatFails: a source that fails is said once, and counted; the rest goes on.
func TestTaskSaysOnceWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.cpu = 0.5
		b.run(t.Context())
		time.Sleep(3500 * time.Millisecond)
		b.set(func() { b.fail = errors.New("no /proc") })
		time.Sleep(10 * time.Second)
		if l, ok := b.load(); !ok || !near(l.CPU, 0.5) {
			t.Errorf("said %+v", l)
		}
		b.set(func() { b.fail = nil })
		time.Sleep(3 * time.Second)
		if b.log.count("no /proc") != 1 || b.log.count("load is known again") != 1 {
			t.Errorf("log:\n%s", b.log.text.String())
		}
		if n := b.task.state.failures[machineFigures]; n != 10 {
			t.Errorf("counted %d times, want 10", n)
		}
	})
}

// Without the data plane there are no figures, and before long no old ones, either.
func TestTaskSaysNothingStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.cpu = 0.5
		b.run(t.Context())
		time.Sleep(3500 * time.Millisecond)
		b.plane.FailTraffic(errors.New("no map"))
		time.Sleep(4 * time.Second)
		if _, ok := b.load(); !ok {
			t.Error("nothing is said after a short failure")
		}
		time.Sleep(4 * time.Second)
		if l, ok := b.load(); ok {
			t.Errorf("%+v is said though nothing is known", l)
		}
		b.plane.FailTraffic(nil)
		time.Sleep(2 * time.Second)
		if _, ok := b.load(); !ok {
			t.Error("nothing is said when the figures are back")
		}
	})
}

// TestTaskCountsSocketsSeldomWhereThatTakesLong: a thirtieth of the time at most; but at once where a service is new.
func TestTaskCountsSocketsSeldomWhereThatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.takes = 300 * time.Millisecond
		b.run(t.Context())
		time.Sleep(100500 * time.Millisecond)
		before := b.counts()
		if before < 11 || before > 12 {
			t.Errorf("counted %d times in 100 s, want 12: each takes 0.3 s, and the next one comes 9 s after its beginning", before)
		}
		dns := web
		dns.Name, dns.Ports = "dns", []service.Port{{Proto: "tcp", Number: 53}}
		b.set(func() { b.serving = []agent.Serving{web, dns} })
		time.Sleep(2 * time.Second)
		if n := b.counts() - before; n != 1 {
			t.Errorf("counted %d times when a service came", n)
		}
	})
}

// other joins a server that says such a load of the web.
func other(hub *control.Hub, name string, cpu float64) *control.HubMember {
	m := hub.Join(control.Member{Name: name, Role: control.Server}, nil)
	say(m, cpu)
	return m
}

func say(m *control.HubMember, cpu float64) {
	m.SetStatus(control.Status{OK: true, Loads: map[string]alloc.Load{"web": {CPU: cpu}}})
}

// TestTaskSheds: on a channel, when the other server of the service is busy, too; it ends when there is less to do. A server of no
// part in the service, and one that says that it does not serve, are not waited for.
func TestTaskSheds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
		self := hub.Join(control.Member{Name: "s1", Role: control.Server}, nil)
		s2, s3 := other(hub, "s2", 0.1), other(hub, "s3", 0)
		b := newBench(self)
		b.cpu = 1
		b.run(t.Context())
		time.Sleep(30 * time.Second)
		if n := b.shed(t); n != 0 {
			t.Errorf("%d of 1024 users refused while s2 is idle", n)
		}
		say(s2, 1)
		time.Sleep(20 * time.Second)
		first := b.shed(t)
		if first == 0 || b.log.count("refuses new connections of some users") != 1 {
			t.Errorf("%d of 1024 users refused while everybody is busy; log:\n%s", first, b.log.text.String())
		}
		time.Sleep(20 * time.Second)
		if n := b.shed(t); n <= first {
			t.Errorf("%d of 1024 users refused, %d some time ago, and there is too much to do still", n, first)
		}
		say(s2, 0.1)
		time.Sleep(20 * time.Second)
		if n := b.shed(t); n == 0 {
			t.Error("nobody refused: it has waited for long enough that s2 takes users")
		}
		b.set(func() { b.cpu = 0.2 })
		time.Sleep(2 * time.Minute)
		if n := b.shed(t); n != 0 || b.log.count("refuses nobody any more") != 1 {
			t.Errorf("%d of 1024 users refused when there is little to do; log:\n%s", n, b.log.text.String())
		}
		s2.SetStatus(control.Status{OK: false, Why: "no answer"})
		b.set(func() { b.cpu = 1 })
		time.Sleep(20 * time.Second)
		if b.shed(t) == 0 {
			t.Error("nobody refused, though it serves alone")
		}
		for _, m := range []*control.HubMember{self, s2, s3} {
			m.Leave()
		}
	})
}

// TestTaskResumesShedding: the data plane goes on refusing over a restart; the next run begins there.
func TestTaskResumesShedding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		if err := b.plane.Shed(web.Group, 512); err != nil {
			t.Fatal(err)
		}
		b.cpu = 0.87 // between threshold and hysteresis
		b.run(t.Context())
		time.Sleep(time.Minute)
		if n := b.shed(t); n != 512 {
			t.Errorf("%d of 1024 users refused, want 512", n)
		}
		never := web
		never.Balance.Shed = 0
		b.set(func() { b.serving = []agent.Serving{never} })
		time.Sleep(2 * time.Second)
		if n := b.shed(t); n != 0 {
			t.Errorf("%d of 1024 users refused by a service that refuses nobody", n)
		}
	})
}

// TestKeptIsReported: also where the users cannot be read, as something that nobody knows.
func TestKeptIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		user := netip.MustParseAddrPort("10.1.0.1:4711")
		fail := error(nil)
		b.task.sources.Users = func(context.Context, []netip.Addr, []dataplane.Port) ([]netip.AddrPort, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return []netip.AddrPort{user, user}, fail
		}
		b.serving = []agent.Serving{web}
		b.serving[0].MayKeep, b.serving[0].Kept = true, func(_ time.Time, connected iter.Seq[netip.AddrPort]) alloc.Kept {
			return alloc.Kept{Connections: len(slices.Collect(connected))}
		}
		b.run(t.Context())
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if l, _ := b.load(); l.Kept == nil || l.Kept.Connections != 2 {
			t.Errorf("kept: %+v, want two connections", l.Kept)
		}
		b.plane.SetFlowUsers([]netip.AddrPort{user})
		time.Sleep(time.Second)
		synctest.Wait()
		if l, _ := b.load(); l.Kept == nil || l.Kept.Connections != 3 {
			t.Errorf("kept: %+v, want two connections and a flow of UDP", l.Kept)
		}
		b.set(func() { fail = errors.New("no socket table") })
		time.Sleep(time.Second)
		synctest.Wait()
		if l, _ := b.load(); l.Kept != nil {
			t.Errorf("kept: %+v, want nothing said", l.Kept)
		}
	})
}
