package leader_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/service"

	"github.com/manycast/manycast/lbd/internal/health"
	"github.com/manycast/manycast/lbd/internal/store"
)

// TestHealthFromProbeToJoin: an application that fails its probes takes its server out of the pool, over checker, registration,
// leader and joins; when it answers again, users come back.
func TestHealthFromProbeToJoin(t *testing.T) {
	var broken atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			http.Error(w, "no database", http.StatusServiceUnavailable)
		}
	}))
	defer app.Close()
	checker, err := health.New(health.Config{
		Type: "http", Target: app.URL, Interval: 50 * time.Millisecond, Timeout: time.Second, Failures: 2, Successes: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	services, err := service.Parse([]byte("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\npolicy: equal\n"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, store.OnBus(r.connect("admin")).Services, "web", service.ToProto(services[0]))
	r.director("d1")
	s1 := r.agent("s1", 1, checker.Run)
	s2 := r.agent("s2", 1, healthy)

	has := func(s served, n int) bool { return accepted(s.plane) == n && s.joined() == n }
	r.wait("first allocation", func() bool { return has(s1, 128) && has(s2, 128) })
	broken.Store(true)
	r.wait("s1 to have left", func() bool { return has(s1, 0) && has(s2, 256) })
	broken.Store(false)
	r.wait("s1 to be back", func() bool { return has(s1, 128) && has(s2, 128) })
}
