package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// flows runs flows of a user with a server that says for each datagram what it answers, until done says so, and returns all events.
func flows(t *testing.T, age time.Duration, answer func(n int) []string, done func([]Event) bool) (events []Event) {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		buf := make([]byte, 100)
		for i := 0; ; i++ {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, name := range answer(i) {
				_, _ = c.WriteTo(append([]byte(name+" "), buf[:n]...), from)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f := Flows{Users: []netip.Addr{netip.MustParseAddr("127.0.0.11")}, Address: c.LocalAddr().String(), Pace: time.Millisecond, Age: age}
	r, w := io.Pipe()
	go func() { w.CloseWithError(f.Run(ctx, w)) }()
	for dec := json.NewDecoder(r); ; {
		var e Event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return events
		} else if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
		if done(events) {
			cancel()
		}
	}
}

func TestFlowsLastAndFollowEachOther(t *testing.T) {
	events := flows(t, 50*time.Millisecond, func(int) []string { return []string{"s1"} }, func(e []Event) bool { return len(e) == 3 })
	var oldest time.Duration
	for _, e := range events {
		d := e.Datagrams
		if e.Kind != Flow || e.How != Own || e.Server != "s1" || d.Sent == 0 || d.Answered != d.Sent || d.Doubled != 0 {
			t.Errorf("%+v, %+v", e, d)
		}
		oldest = max(oldest, e.End.Sub(e.Start))
	}
	if len(events) < 4 || oldest < 3*50*time.Millisecond {
		t.Errorf("%d flows, the oldest %v", len(events), oldest)
	}
}

func TestFlowsEndWhereOthersAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(n int) []string
		want   How
		server string
	}{
		{"by another server", func(n int) []string { return []string{map[bool]string{true: "s1", false: "s2"}[n < 40]} }, Other, "s1"},
		{"by two", func(int) []string { return []string{"s1", "s2"} }, Other, "s1"},
		{"by nobody any more", func(n int) []string { return []string{"s1"}[:map[bool]int{true: 1}[n < 40]] }, Timeout, "s1"},
		{"by nobody", func(int) []string { return nil }, Timeout, ""},
	} {
		e := flows(t, time.Minute, tt.answer, func(e []Event) bool { return len(e) == 1 })[0]
		if e.How != tt.want || e.Server != tt.server || e.Err == "" || (e.Datagrams.Doubled > 0) != (tt.name == "by two") {
			t.Errorf("%s: %+v, %+v", tt.name, e, e.Datagrams)
		}
	}
}
