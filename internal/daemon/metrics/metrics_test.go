package metrics

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func counter(name string, v float64) prometheus.Collector {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name})
	c.Add(v)
	return c
}

// TestServer answers from the start until its end, on an address that it has to itself.
func TestServer(t *testing.T) {
	s, err := Listen("127.0.0.1:0", counter("a_total", 7), counter("b_total", 9))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Addr().String()); err == nil || !strings.Contains(err.Error(), "metrics.listen") {
		t.Errorf("an address in use: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for path, want := range map[string][]string{"/metrics": {"a_total 7", "b_total 9"}, "/": {"404"}} {
		resp, err := http.Get("http://" + s.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		for _, text := range want {
			if !strings.Contains(string(body), text) {
				t.Errorf("%s: no %q in\n%s", path, text, body)
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := http.Get("http://" + s.Addr().String() + "/metrics"); err == nil {
		t.Error("it answers after its end")
	}
}

// TestTwoOfOneName: collectors that cannot be together are an error, and the address is free again.
func TestTwoOfOneName(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := s.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(address, counter("a_total", 1), counter("a_total", 1)); err == nil {
		t.Error("two of one name are taken")
	}
	if _, err := Listen(address); err != nil {
		t.Error(err)
	}
}
