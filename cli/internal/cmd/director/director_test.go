package director_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// edge is a router that goes one phase on each time it is asked.
type edge struct {
	mu     sync.Mutex
	phases []string // from the one it is in
	stays  bool
	asked  []*tdpdv1.AnnounceRequest
}

func (e *edge) answer(r *tdpdv1.AnnounceRequest) *tdpdv1.Announced {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, r)
	switch {
	case r.GetDrain():
		e.phases = []string{"leaving", "withdrawn", "out"}
	case r.GetBack():
		e.phases = []string{"entering", "in"}
	case len(e.phases) > 1 && !e.stays:
		e.phases = e.phases[1:]
	}
	phase := e.phases[0]
	out := &tdpdv1.Announced{Phase: phase, Waits: "neighbors to be told", LeftMs: 1000, Drained: phase == "out"}
	out.Vips = []*tdpdv1.AnnouncedVIP{
		{Address: "192.0.2.80", Announced: phase != "out" && phase != "withdrawn", Reach: "reached"},
		{Address: "192.0.2.81", Reach: "no way to a server", DampedMs: 4000, Flaps: 3},
	}
	if len(e.phases) == 1 {
		out.Waits, out.LeftMs = "nothing", -1
	}
	return out
}

func start(t *testing.T) (*cmdtest.Bus, *edge) {
	b := cmdtest.Start(t)
	c, err := bus.Connect(bus.Config{URLs: []string{b.URL()}, Credentials: filepath.Join(filepath.Dir(b.Credentials()), "tdpd.nk"), Name: "edge1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	e := &edge{phases: []string{"in"}}
	_, err = c.Handle(bus.Of("tdpd.ask", "edge1"), func(m bus.Msg) (proto.Message, error) {
		r := &tdpdv1.Request{}
		if err := proto.Unmarshal(m.Data, r); err != nil {
			return nil, err
		}
		return &tdpdv1.Answer{Router: "edge1", About: &tdpdv1.Answer_Announce{Announce: e.answer(r.GetAnnounce())}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 10*time.Second, func() bool { return b.Run("director", "show", "edge1").Error == nil }, "the router answers")
	return b, e
}

func TestShow(t *testing.T) {
	b, _ := start(t)
	cmdtest.Golden(t, "show", b.OK("director", "show", "edge1"))
	cmdtest.Golden(t, "show-json", b.OK("director", "show", "edge1", "-o", "json"))
	b.Refused([]string{"edge7", "not on the bus"}, "director", "show", "edge7")
}

func TestDrainAndUndrain(t *testing.T) {
	b, e := start(t)
	r := b.Run("director", "drain", "edge1", "--wait")
	if r.Error != nil {
		t.Fatal(r.Error)
	}
	for _, words := range []string{"edge1: leaving, waits for neighbors to be told", "edge1: withdrawn"} {
		if !strings.Contains(r.Err, words) {
			t.Errorf("no %q in\n%s", words, r.Err)
		}
	}
	cmdtest.Golden(t, "drain", r.Out)
	if !strings.Contains(b.OK("director", "undrain", "edge1"), "entering") {
		t.Error("without --wait it is waited for")
	}
	if out := b.OK("director", "undrain", "edge1", "--wait"); !strings.Contains(out, "edge1   in ") {
		t.Errorf("it has not come in:\n%s", out)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.asked[len(e.asked)-1].GetBack() && e.asked[len(e.asked)-1].GetChange() != nil {
		t.Errorf("asked %v", e.asked)
	}
}

func TestWaitingEnds(t *testing.T) {
	b, e := start(t)
	e.stays = true
	r := b.Run("director", "drain", "edge1", "--wait", "--timeout", "2s")
	if r.Error == nil || !strings.Contains(r.Error.Error(), "is leaving and waits for neighbors to be told") || !strings.Contains(r.Out, "leaving") {
		t.Errorf("%v\n%s", r.Error, r.Out)
	}
}
