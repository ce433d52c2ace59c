package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// run runs a load against a server until done says so, and returns all events.
func run(t *testing.T, h http.Handler, done func([]Event) bool) []Event {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, w := io.Pipe()
	load := &Load{
		Users: []netip.Addr{netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.12")},
		URL:   server.URL, Every: 10 * time.Millisecond, ServerHeader: "X-Server", CountHeader: "X-Answers",
	}
	go func() { w.CloseWithError(load.Run(ctx, w)) }()
	var events []Event
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
			done = func([]Event) bool { return false }
		}
	}
}

func requests(events []Event) (n int) {
	for _, e := range events {
		if e.Kind == Request {
			n++
		}
	}
	return n
}

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Server", "s1")
	io.WriteString(w, "hello")
}

func TestLoadKeepsAndOpensConnections(t *testing.T) {
	events := run(t, http.HandlerFunc(hello), func(e []Event) bool { return requests(e) >= 40 })
	opened := map[netip.Addr]int{}
	ends := map[How]int{}
	for _, e := range events {
		switch e.Kind {
		case Open:
			opened[e.User]++
		case Close:
			ends[e.How]++
			if e.Server != "s1" {
				t.Errorf("connection of %q: %+v", e.Server, e)
			}
		case Request:
			if !e.OK || e.Server != "s1" || !e.Retry.IsZero() {
				t.Errorf("request: %+v", e)
			}
		}
	}
	if len(opened) != 2 || opened[netip.MustParseAddr("127.0.0.11")] < 5 {
		t.Errorf("opened %v: want many by each user", opened)
	}
	total := opened[netip.MustParseAddr("127.0.0.11")] + opened[netip.MustParseAddr("127.0.0.12")]
	if total >= requests(events) {
		t.Errorf("%d connections for %d requests: none was kept", total, requests(events))
	}
	if ends[Own] != total || len(ends) != 1 {
		t.Errorf("%d connections ended as %v: want all by the user", total, ends)
	}
}

// A server that knows nothing of the answers before it has another session.
func TestLostSessionIsSeen(t *testing.T) {
	forgets := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Answers", "1")
		hello(w, r)
	}
	events := run(t, http.HandlerFunc(forgets), func(e []Event) bool { return requests(e) >= 40 })
	lost := 0
	for _, e := range events {
		if e.Kind == Request && strings.Contains(e.Err, "session lost") {
			lost++
			if !e.OK || e.Retry.IsZero() {
				t.Errorf("%+v: a fresh connection has a new session", e)
			}
		}
	}
	if lost == 0 {
		t.Error("no session was missed")
	}
}

func TestIdleConnectionsAreKept(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	l := &Load{Users: []netip.Addr{netip.MustParseAddr("127.0.0.11")}, URL: server.URL, Every: time.Hour, Idle: 10 * time.Millisecond}
	if err := l.Run(ctx, &out); err != nil {
		t.Fatal(err)
	}
	opened := map[time.Time]int{}
	for dec := json.NewDecoder(&out); ; {
		var e Event
		if err := dec.Decode(&e); err != nil {
			break
		}
		if e.Kind == Request {
			opened[e.Opened]++
		}
	}
	if len(opened) != 1 {
		t.Errorf("requests by when their connection was opened: %v; want all on one that is kept", opened)
	}
}

func TestResetIsSeen(t *testing.T) {
	reset := func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	events := run(t, http.HandlerFunc(reset), func(e []Event) bool { return requests(e) >= 4 })
	for _, e := range events {
		if e.Kind == Close && e.How != Reset {
			t.Errorf("end %q %s, want a reset", e.How, e.Err)
		}
		if e.Kind == Request && (e.OK || e.Retry.IsZero() || e.Err == "") {
			t.Errorf("request: %+v, want one that failed twice", e)
		}
	}
}

func TestSilenceIsATimeout(t *testing.T) {
	silent := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	events := run(t, http.HandlerFunc(silent), func(e []Event) bool { return requests(e) >= 1 })
	closed := 0
	for _, e := range events {
		if e.Kind == Close {
			closed++
			if e.How != Timeout {
				t.Errorf("end %q, want timeout", e.How)
			}
		}
		if e.Kind == Request && (e.OK || e.End.Sub(e.Start) < firstWithin+secondWithin) {
			t.Errorf("request %+v: want two attempts of %v and %v", e, firstWithin, secondWithin)
		}
	}
	if closed == 0 {
		t.Error("no connection ended")
	}
}

func TestLoadEndsWhenNobodyReads(t *testing.T) {
	load := &Load{Users: []netip.Addr{netip.MustParseAddr("127.0.0.11")}, URL: "http://127.0.0.1:1/", Every: time.Millisecond}
	if err := load.Run(t.Context(), badWriter{}); err == nil {
		t.Error("no error")
	}
	if err := (&Load{}).Run(t.Context(), &bytes.Buffer{}); err == nil {
		t.Error("a load of nobody was taken")
	}
}

type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A session goes on over connections; one that a server does not know, and a server that sees somebody else, fail requests.
func TestSessions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(had int, from string) (cookie int, user string)
		wrong  string // in the error
	}{
		{"as it should", func(had int, from string) (int, string) { return had + 1, from }, ""},
		{"an answer twice", func(had int, from string) (int, string) { return had, from }, "session lost"},
		{"somebody else", func(had int, _ string) (int, string) { return had + 1, "127.0.0.1:80" }, "the server sees"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			had := 0
			if c, err := r.Cookie("answers"); err == nil {
				had, _ = strconv.Atoi(c.Value)
			}
			cookie, user := tt.answer(had, r.RemoteAddr)
			http.SetCookie(w, &http.Cookie{Name: "answers", Value: strconv.Itoa(cookie)})
			w.Header().Set("X-User", user)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		load := &Load{
			Users: []netip.Addr{netip.MustParseAddr("127.0.0.11")}, URL: server.URL, Every: time.Millisecond,
			KeptOnly: true, SessionCookie: "answers", UserHeader: "X-User", Via: Relay,
		}
		go func() { w.CloseWithError(load.Run(ctx, w)) }()
		asked, opened := 0, 0
		for dec := json.NewDecoder(r); ; {
			var e Event
			if err := dec.Decode(&e); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if e.Via != Relay {
				t.Errorf("%s: %+v", tt.name, e)
			}
			switch e.Kind {
			case Open:
				opened++
			case Request:
				if e.OK != (tt.wrong == "") || !strings.Contains(e.Err, tt.wrong) {
					t.Errorf("%s: %+v", tt.name, e)
				}
				if asked++; asked == 5 {
					cancel()
				}
			}
		}
		if tt.wrong == "" && opened != 1 {
			t.Errorf("%s: %d connections", tt.name, opened)
		}
		cancel()
		server.Close()
	}
}
