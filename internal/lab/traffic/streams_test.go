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

	"github.com/manycast/manycast/internal/lab/app"
	"github.com/manycast/manycast/internal/lab/numbered"
)

// serve serves each connection as a stream, or breaks it.
func serve(t *testing.T, each func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.ReadFull(c, make([]byte, numbered.HelloBytes))
				each(c)
			}()
		}
	}()
	return l.Addr().String()
}

// stream runs streams of four users until done says so, and returns all events.
func stream(t *testing.T, address string, done func([]Event) bool) (events []Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s := Streams{
		Users: []netip.Addr{
			netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.12"), netip.MustParseAddr("127.0.0.13"), netip.MustParseAddr("127.0.0.14"),
		},
		Address: address, Servers: []string{"s1", "s2"},
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.Run(ctx, w)) }()
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

func count(events []Event, kind Kind) (n int) {
	for _, e := range events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// Streams of all kinds with the lab's application end in peace, whole at both ends.
func TestStreams(t *testing.T) {
	a, err := app.Listen(t.Context(), app.Config{Name: "s2", Listen: "127.0.0.1:0", Streams: "127.0.0.1:0", Number: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- a.Run(ctx) }()
	events := stream(t, a.StreamAddr().String(), func(e []Event) bool { return count(e, Wait) >= 10 })
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	kinds := map[string]int{}
	for _, e := range events {
		if e.Kind != Close {
			continue
		}
		kinds[e.Stream]++
		if e.How != Own || e.Server != "s2" || e.Bytes.Up == nil || !e.Bytes.Whole() || e.Bytes.Down.Received == 0 || e.Bytes.Up.Received == 0 {
			t.Errorf("%+v, %+v", e, e.Bytes)
		}
	}
	if len(kinds) != len(profiles) || kinds["stream"] != 4 || count(events, Open) != count(events, Close) {
		t.Errorf("streams %v: want those of four users", kinds)
	}
	if count(events, Switch) > 0 {
		t.Error("another server wrote")
	}
}

// A server that closes at once, in whatever way, is seen; streams begin anew.
func TestStreamsThatBreak(t *testing.T) {
	for how, end := range map[How]func(c net.Conn){
		Reset: func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) },
		EOF: func(c net.Conn) {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		},
	} {
		events := stream(t, serve(t, end), func(e []Event) bool { return count(e, Close) >= 10 })
		for _, e := range events {
			if e.Kind == Close && e.How != how {
				t.Errorf("%s: %+v", how, e)
			}
		}
		if count(events, Close) < 10 {
			t.Errorf("%s: %d events", how, len(events))
		}
	}
}

// Who goes on with a stream is seen by what it writes.
func TestSwitchIsSeen(t *testing.T) {
	r := &reader{subscriber: &subscriber{Streams: &Streams{Servers: []string{"s1", "s2"}}, out: &output{enc: json.NewEncoder(io.Discard)}}}
	source := numbered.Source{}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var seen []Event
	pr, pw := io.Pipe()
	r.out.enc = json.NewEncoder(pw)
	go func() {
		for i, writer := range []uint8{1, 1, 2, 2, 1} {
			source.Writer = writer
			r.sink.Take(source.Append(nil, 1))
			r.note(at.Add(time.Duration(i) * time.Millisecond))
		}
		pw.Close()
	}()
	for dec := json.NewDecoder(pr); ; {
		var e Event
		if dec.Decode(&e) != nil {
			break
		}
		seen = append(seen, e)
	}
	if len(seen) != 2 || seen[0].Server != "s2" || seen[1].Server != "s1" || seen[0].Kind != Switch ||
		seen[0].End.Sub(seen[0].Start) != time.Millisecond || !r.sink.Seen.Whole() {
		t.Errorf("%+v", seen)
	}
}
