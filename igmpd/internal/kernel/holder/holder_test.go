package holder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// start runs a server whose tables are pipes, so that no privilege is needed.
func start(t *testing.T, change func(*Server)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "h.sock")
	s := New(path, keep(nil), slog.New(slog.DiscardHandler))
	s.open = func(table uint32) (*os.File, error) {
		if table == 13 {
			return nil, errors.New("table 13 belongs to pimd")
		}
		r, w, err := os.Pipe()
		if err == nil {
			w.WriteString("table")
			w.Close()
		}
		return r, err
	}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(5 * time.Second):
		t.Fatal("the holder does not listen")
	}
	return path
}

// store keeps files as a service manager does.
type store struct {
	mu    sync.Mutex // the holder has goroutines of its own
	files map[string]*os.File
}

// keep makes a store that has files already.
func keep(files map[string]*os.File) *store {
	s := &store{files: map[string]*os.File{}}
	maps.Copy(s.files, files)
	return s
}

func (s *store) Files() map[string]*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.files)
}

func (s *store) Put(name string, f *os.File) error {
	fd, err := syscall.Dup(int(f.Fd()))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = os.NewFile(uintptr(fd), name)
	return err
}

func (s *store) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, name)
	return nil
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOpenPassesTheSameSocketAgain(t *testing.T) {
	path := start(t, nil)
	for range 2 { // the second client finds what the first one opened
		c := dial(t, path)
		f, err := c.Open(7)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	f, err := dial(t, path).Open(7)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "table" {
		t.Errorf("read %q %v through the passed descriptor", b, err)
	}
}

func TestListAndRelease(t *testing.T) {
	c := dial(t, start(t, nil))
	for _, table := range []uint32{30, 10, 20} {
		f, err := c.Open(table)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := errors.Join(c.Release(20), c.Release(99)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.List(); err != nil || !slices.Equal(got, []uint32{10, 30}) {
		t.Errorf("List = %v, %v", got, err)
	}
}

// TestNextHolderIsGivenTheTables: what the last one held is given to it by who has it open; what it has it keeps.
func TestNextHolderIsGivenTheTables(t *testing.T) {
	f, err := dial(t, start(t, nil)).Open(7)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kept := keep(nil)
	next := dial(t, start(t, func(s *Server) {
		s.kept = kept
		s.open = func(uint32) (*os.File, error) { return nil, errors.New("address already in use") }
	}))
	for range 2 {
		if err := next.Give(7, f); err != nil {
			t.Fatal(err)
		}
	}
	again, err := next.Open(7)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if b, err := io.ReadAll(again); err != nil || string(b) != "table" {
		t.Errorf("read %q %v through the table that was given", b, err)
	}
	if kept.Files()[keptAs(7)] == nil {
		t.Error("the service manager was not given it")
	}
}

// TestGiveWithoutASocket ends the connection, and so does a socket beside another request.
func TestGiveWithoutASocket(t *testing.T) {
	path := start(t, nil)
	if _, _, err := dial(t, path).ask(request{opGive, 7}, nil); err == nil || !strings.Contains(err.Error(), errNotOurs.Error()) {
		t.Errorf("nothing given: %v", err)
	}
	if _, _, err := dial(t, path).ask(request{opList, 0}, syscall.UnixRights(0)); err == nil || !strings.Contains(err.Error(), errNotOurs.Error()) {
		t.Errorf("a list with a socket: %v", err)
	}
}

func TestListOfManyTables(t *testing.T) {
	var want []uint32
	c := dial(t, start(t, func(s *Server) {
		for n := range uint32(2*listMax + 5) {
			s.tables[n] = nil
			want = append(want, n)
		}
	}))
	if got, err := c.List(); err != nil || !slices.Equal(got, want) {
		t.Errorf("List has %d tables of %d, %v", len(got), len(want), err)
	}
}

func TestRefusals(t *testing.T) {
	path := start(t, nil)
	if _, err := dial(t, path).Open(13); err == nil || !strings.Contains(err.Error(), "pimd") {
		t.Errorf("a table of someone else: %v", err)
	}
	if err := New(path, keep(nil), slog.New(slog.DiscardHandler)).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another holder") {
		t.Errorf("second holder: %v", err)
	}
	if _, err := Dial(path + "x"); err == nil || !strings.Contains(err.Error(), "igmpd holder") {
		t.Errorf("no holder: %v", err)
	}
	other := start(t, func(s *Server) { s.uid++ })
	if _, err := dial(t, other).Open(1); err == nil || !strings.Contains(err.Error(), "user id") {
		t.Errorf("another user: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", st.Mode(), err)
	}
}

func TestMalformedRequestEndsTheConnection(t *testing.T) {
	c := dial(t, start(t, nil))
	if _, err := c.conn.Write([]byte("MH\x01\x01\x00\x00\x00\x07\x00")); err != nil {
		t.Fatal(err)
	}
	var buf [replyMax]byte
	n, err := c.conn.Read(buf[:])
	if err != nil {
		t.Fatal(err)
	}
	if r, err := parseReply(buf[:n]); err != nil || r.failed == "" {
		t.Errorf("answer %+v %v", r, err)
	}
	if n, err := c.conn.Read(buf[:]); n != 0 {
		t.Errorf("the connection goes on: %d %v", n, err)
	}
}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		wire []byte
		r    request
	}{
		{[]byte{'M', 'H', 1, 1, 0, 0, 0x27, 0x11}, request{opOpen, 10001}},
		{[]byte{'M', 'H', 1, 3, 0, 0, 0, 0}, request{opList, 0}},
	} {
		if got := c.r.marshal(); !bytes.Equal(got, c.wire) {
			t.Errorf("%+v: % x", c.r, got)
		}
		if got, err := parseRequest(c.wire); err != nil || got != c.r {
			t.Errorf("% x: %+v %v", c.wire, got, err)
		}
	}
	wire := []byte{'M', 'H', 1, 0, 0, 0, 0, 5, 0, 0, 1, 0}
	if got := (reply{tables: []uint32{5, 256}}).marshal(); !bytes.Equal(got, wire) {
		t.Errorf("reply: % x", got)
	}
	if _, err := parseReply([]byte{'M', 'H', 2, 0}); !errors.Is(err, errVersion) {
		t.Errorf("another version: %v", err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(request{opOpen, 10001}.marshal())
	f.Add(reply{tables: []uint32{1, 2}}.marshal())
	f.Add(reply{failed: "no"}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRequest(b); err == nil && !bytes.Equal(r.marshal(), b) {
			t.Errorf("request % x becomes % x", b, r.marshal())
		}
		if r, err := parseReply(b); err == nil && !bytes.Equal(r.marshal(), b) {
			t.Errorf("reply % x becomes % x", b, r.marshal())
		}
	})
}

// A holder that is started again has the sockets of the one before, and only those that were not released.
func TestRestartKeepsTables(t *testing.T) {
	kept := keep(nil)
	t.Run("before", func(t *testing.T) {
		c := dial(t, start(t, func(s *Server) { s.kept = kept }))
		for _, table := range []uint32{10001, 10002} {
			f, err := c.Open(table)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		if err := c.Release(10002); err != nil {
			t.Fatal(err)
		}
	})
	s := New(filepath.Join(t.TempDir(), "h.sock"), keep(map[string]*os.File{"table-10001": kept.files["table-10001"], "table-x": pipe(t), "other": pipe(t)}), slog.New(slog.DiscardHandler))
	if len(kept.files) != 1 || len(s.tables) != 1 {
		t.Fatalf("kept %v, tables %v", kept.files, s.tables)
	}
	f, err := s.get(10001)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); string(text) != "table" || err != nil {
		t.Errorf("read %q, %v: not the socket of before", text, err)
	}
}

func pipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	return r
}

// The loop turns, and does not while the tables are in use.
func TestTurns(t *testing.T) {
	var s *Server
	start(t, func(x *Server) { s = x })
	turn := s.Turns()[0]
	select {
	case turn <- struct{}{}:
	case <-time.After(10 * turnEvery):
		t.Fatal("does not turn")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case turn <- struct{}{}:
		t.Error("turns though its state is locked")
	case <-time.After(2 * turnEvery):
	}
}
