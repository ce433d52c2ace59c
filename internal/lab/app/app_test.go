package app

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T) *App {
	a, err := Listen(t.Context(), Config{Name: "s1", Listen: "127.0.0.1:0", Streams: "127.0.0.1:0", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return a
}

func TestAnswersWithItsName(t *testing.T) {
	a := start(t)
	begin := time.Now()
	resp, err := http.Get("http://" + a.Addr().String() + "/?ms=30")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.Header.Get(ServerHeader) != "s1" || !strings.HasPrefix(string(body), "s1 127.0.0.1:") {
		t.Errorf("header %q, body %q", resp.Header.Get(ServerHeader), body)
	}
	if time.Since(begin) < 30*time.Millisecond {
		t.Error("the answer did not wait")
	}
}

func TestCountsAnswersOfAConnection(t *testing.T) {
	a := start(t)
	for range 2 {
		rt := &http.Transport{}
		for _, want := range []string{"1", "2", "3"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Addr().String()+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if got := resp.Header.Get(CountHeader); got != want {
				t.Errorf("answer %s, want %s", got, want)
			}
		}
		rt.CloseIdleConnections()
	}
}

func TestEcho(t *testing.T) {
	a := start(t)
	c, err := net.Dial("udp", a.udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(c, "hi")
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != "s1 hi" {
		t.Errorf("%q %v", buf[:n], err)
	}
}
