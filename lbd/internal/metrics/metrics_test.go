package metrics

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestCountersAreServed(t *testing.T) {
	type counters struct{ NotMine, ICMPErrors uint64 }
	s, err := Listen("127.0.0.1:0", NewCounters("agent", func() (counters, error) { return counters{7, 9}, nil }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Addr().String()); err == nil {
		t.Error("an address in use is taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	resp, err := http.Get("http://" + s.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"manycast_agent_not_mine_total 7", "manycast_agent_icmp_errors_total 9"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
