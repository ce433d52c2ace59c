package load

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/agent"
)

var one, two = netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("10.0.3.1")

func TestDivertingRules(t *testing.T) {
	idle := []Other{{two, 0.5}, {one, 0.5}}
	half := Diverting{0.5, two}
	for name, c := range map[string]struct {
		was    Diverting
		own    float64
		others []Other
		to     netip.Addr
		more   int // -1, 0, 1; of none: nobody is diverted
	}{
		"room":                      {Diverting{}, 0.5, idle, netip.Addr{}, 0},
		"too much to do":            {Diverting{}, 1, idle, one, 1},
		"the least loaded":          {Diverting{}, 1, []Other{{one, 0.5}, {two, 0.4}}, two, 1},
		"more":                      {half, 1, idle, two, 1},
		"within hysteresis":         {half, 0.87, idle, two, 0},
		"fewer":                     {half, 0.5, idle, two, -1},
		"it has too much to do now": {half, 1, []Other{{one, 0.6}, {two, 0.95}}, one, 1},
		"all have":                  {half, 1, []Other{{one, 0.95}, {two, 0.95}}, netip.Addr{}, -1},
		"alone":                     {half, 1, nil, netip.Addr{}, -1},
	} {
		got := c.was.Next(time.Second, Overload{Threshold: 0.9, Own: c.own}, c.others)
		if got.To != c.to || c.more > 0 != (got.Diverted > c.was.Diverted) || c.more < 0 != (got.Diverted < c.was.Diverted) {
			t.Errorf("%s: %+v after %+v", name, got, c.was)
		}
	}
	if got := half.Next(time.Second, Overload{Own: 2}, idle); got != (Diverting{}) {
		t.Errorf("without a threshold: %+v", got)
	}
}

// TestTaskDiverts: new connections go to who has less to do, by a service whose connections say where they live, and to nobody when there is less
// to do, when all have too much, or when the service is no more such.
func TestTaskDiverts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
		self := hub.Join(control.Member{Name: "s1", Role: control.Server}, nil)
		s2 := hub.Join(control.Member{Name: "s2", Role: control.Server, Address: one}, nil)
		say(s2, 0.1)
		b := newBench(self)
		dynamic := web
		dynamic.Dynamic = service.Dynamic{On: true}
		b.cpu = 1
		b.serving = []agent.Serving{web}
		b.run(t.Context())
		diverted := func() (int, netip.Addr) {
			share, to, err := b.plane.Redirecting(web.Group)
			if err != nil {
				t.Fatal(err)
			}
			return share, to
		}
		time.Sleep(20 * time.Second)
		if n, _ := diverted(); n != 0 {
			t.Errorf("%d of 1024 users of connections that cannot move", n)
		}
		b.set(func() { b.serving = []agent.Serving{dynamic} })
		time.Sleep(20 * time.Second)
		if n, to := diverted(); n == 0 || to != one || b.log.count("new connections of some users go to another server") != 1 {
			t.Errorf("%d of 1024 users to %v; log:\n%s", n, to, b.log.text.String())
		}
		say(s2, 1)
		time.Sleep(10 * time.Second)
		if n, _ := diverted(); n != 0 || b.shed(t) == 0 {
			t.Errorf("%d of 1024 users diverted, %d refused, where all have too much to do", n, b.shed(t))
		}
		say(s2, 0.1)
		time.Sleep(10 * time.Second)
		if n, _ := diverted(); n == 0 {
			t.Error("nobody diverted again")
		}
		b.set(func() { b.serving = []agent.Serving{web} })
		time.Sleep(2 * time.Second)
		if n, _ := diverted(); n != 0 {
			t.Errorf("%d of 1024 users of a service that is no more dynamic", n)
		}
		self.Leave()
		s2.Leave()
	})
}

// TestTaskResumesDiverting: the data plane goes on over a restart; who comes next may end it.
func TestTaskResumesDiverting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		if err := b.plane.Redirect(web.Group, 512, one); err != nil {
			t.Fatal(err)
		}
		b.run(t.Context())
		time.Sleep(5 * time.Second)
		if n, _, err := b.plane.Redirecting(web.Group); n != 0 || err != nil {
			t.Errorf("%d of 1024 users, %v", n, err)
		}
	})
}
