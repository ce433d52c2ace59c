package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStateFollowsThresholds(t *testing.T) {
	// Each letter is one probe: . success, x failure; the verdict after it is below: H healthy, - unhealthy.
	tests := []struct{ name, probes, verdicts string }{
		{"the first probe decides", ".", "H"},
		{"the first probe decides against", "x..", "--H"},
		{"a single failure is forgiven", ".x.xx.", "HHHHHH"},
		{"failures in a row count", ".xxx", "HHH-"},
		{"recovery takes successes in a row", ".xxx.x..", "HHH----H"},
		{"never healthy", "x.x.x", "-----"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewState(Config{Failures: 3, Successes: 2})
			var got strings.Builder
			for _, p := range tt.probes {
				before := s.Healthy()
				first := got.Len() == 0
				if isNew := s.Result(p == '.'); isNew != (first || before != s.Healthy()) {
					t.Errorf("new: %t, verdict %t after %t", isNew, s.Healthy(), before)
				}
				got.WriteByte(map[bool]byte{true: 'H', false: '-'}[s.Healthy()])
			}
			if got.String() != tt.verdicts {
				t.Errorf("probes %s: verdicts %s, want %s", tt.probes, got.String(), tt.verdicts)
			}
		})
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	good := Config{Type: "tcp", Target: "127.0.0.1:80", Interval: time.Second, Timeout: time.Second, Failures: 3, Successes: 2}
	with := func(change func(*Config)) Config { c := good; change(&c); return c }
	tests := []struct {
		c    Config
		want string // "" is no error
	}{
		{good, ""},
		{Default(), ""},
		{Config{Type: "none"}, ""},
		{with(func(c *Config) { c.Type = "icmp" }), `type "icmp": want none, tcp, http or command`},
		{with(func(c *Config) { c.Target = "127.0.0.1" }), "want host:port"},
		{with(func(c *Config) { c.Type, c.Target = "http", "127.0.0.1/healthz" }), "want http://host/path"},
		{with(func(c *Config) { c.Type, c.Target = "http", "http://[::1" }), "target of type http"},
		{with(func(c *Config) { c.Type, c.Target = "command", " " }), "target is empty"},
		{with(func(c *Config) { c.Interval = 0 }), "interval 0s"},
		{with(func(c *Config) { c.Timeout = -1 }), "timeout"},
		{with(func(c *Config) { c.Failures = 0 }), "must be at least 1"},
	}
	for _, tt := range tests {
		_, err := New(tt.c)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want %q", tt.c, err, tt.want)
		}
	}
}

func TestProbers(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/hangs":
			<-r.Context().Done()
		case "/breaks":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
		}
	}))
	defer web.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	tests := []struct {
		kind, target string
		ok           bool
	}{
		{"tcp", web.Listener.Addr().String(), true},
		{"tcp", closed.Addr().String(), false},
		{"http", web.URL + "/ok", true},
		{"http", web.URL + "/moved", true},
		{"http", web.URL + "/bad", false},
		{"http", web.URL + "/hangs", false},
		{"http", web.URL + "/breaks", false},
		{"http", "http://" + closed.Addr().String(), false},
		{"command", "true", true},
		{"command", "test 1 = 1 && exit 0", true},
		{"command", "echo why; exit 3", false},
		{"command", "sleep 60 & sleep 60", false},
		{"command", "/no/such/program", false},
	}
	for _, tt := range tests {
		t.Run(tt.kind+" "+tt.target, func(t *testing.T) {
			p, err := newProber(Config{Type: tt.kind, Target: tt.target})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			if err := p.Probe(ctx); (err == nil) != tt.ok {
				t.Errorf("error %v, want ok %t", err, tt.ok)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("took %v beyond its time", took)
			}
		})
	}
}

func TestCommandSaysWhy(t *testing.T) {
	err := commandProber{"echo too many connections; exit 3"}.Probe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "too many connections") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v does not say why", err)
	}
}

// script answers probes in turn, the last answer for ever.
type script struct {
	answers []error
	deadly  bool // the next probe hangs until its time is up
}

func (s *script) Probe(ctx context.Context) error {
	if s.deadly {
		<-ctx.Done()
		return ctx.Err()
	}
	err := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	return err
}

func TestCheckerReportsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		s := &script{answers: []error{nil, down, nil, down, down, down, nil}}
		c := &Checker{config: Config{Interval: time.Second, Timeout: 500 * time.Millisecond, Failures: 3, Successes: 2}, prober: s, after: time.After}
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		var got []string
		go c.Run(ctx, func(healthy bool, why error) {
			verdict := map[bool]string{true: "healthy", false: "unhealthy"}[healthy]
			if why != nil {
				verdict += ": " + why.Error()
			}
			got = append(got, time.Since(begin).String()+" "+verdict)
		})
		time.Sleep(7500 * time.Millisecond) // the bubble's clock
		synctest.Wait()
		cancel()
		synctest.Wait()
		want := "0s healthy, 5s unhealthy: down, 7s healthy"
		if joined := strings.Join(got, ", "); joined != want {
			t.Errorf("reports: %s\nwant: %s", joined, want)
		}
	})
}

func TestCheckerTakesAHangForAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Checker{config: Config{Interval: time.Second, Timeout: 500 * time.Millisecond, Failures: 1, Successes: 1}, prober: &script{deadly: true}, after: time.After}
		ctx, cancel := context.WithCancel(t.Context())
		reports := make(chan error, 1)
		begin := time.Now()
		go c.Run(ctx, func(_ bool, why error) { reports <- why })
		if why := <-reports; !errors.Is(why, context.DeadlineExceeded) || time.Since(begin) != 500*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begin), why)
		}
		cancel()
		synctest.Wait()
	})
}

// slow answers after a time.
type slow time.Duration

func (s slow) Probe(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(s)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestOwnPauseIsNotTheApplications: the agent was not run for a while, and finds its time over before it has read the answer.
func TestOwnPauseIsNotTheApplications(t *testing.T) {
	late := func(by ...time.Duration) func(time.Duration) <-chan time.Time {
		n := -1
		return func(d time.Duration) <-chan time.Time {
			n++
			return time.After(d + by[n%len(by)])
		}
	}
	for what, test := range map[string]struct {
		pauses  func(time.Duration) <-chan time.Time // of the agent, after each part of its patience
		answers time.Duration
		healthy bool
	}{
		"no pause":                          {late(0), 499 * time.Millisecond, true},
		"no pause, too late":                {late(0), 501 * time.Millisecond, false},
		"one pause":                         {late(0, 0, 4*time.Second, 0, 0, 0, 0, 0, 0, 0), 4100 * time.Millisecond, true},
		"one pause, too late":               {late(0, 0, 4*time.Second, 0, 0, 0, 0, 0, 0, 0), 4501 * time.Millisecond, false},
		"half of the time, all the time":    {late(50 * time.Millisecond), 999 * time.Millisecond, true},
		"half of the time, and still later": {late(50 * time.Millisecond), 1001 * time.Millisecond, false},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &Checker{config: Config{Interval: time.Second, Timeout: 500 * time.Millisecond, Failures: 1, Successes: 1}, prober: slow(test.answers), after: test.pauses}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				reports := 0
				go c.Run(ctx, func(healthy bool, why error) {
					reports++
					if healthy != test.healthy || errors.Is(why, context.DeadlineExceeded) == test.healthy {
						t.Errorf("healthy: %t, %v", healthy, why)
					}
				})
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if reports != 1 {
					t.Errorf("%d reports", reports)
				}
			})
		})
	}
}

func TestTypeNoneIsHealthyAtOnce(t *testing.T) {
	c, err := New(Default())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.Run(ctx, func(healthy bool, why error) {
		if !healthy || why != nil {
			t.Errorf("healthy %t, why %v", healthy, why)
		}
		cancel()
	})
}
