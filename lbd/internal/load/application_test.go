package load

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// logged is a log's text.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestApplicationsFile: what is in the file counts from when it was written, for thirty seconds; what is wrong with it is said
// once, and counted each time.
func TestApplicationsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "load")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path+".new", time.Now(), time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		c, log := DefaultConfig(), &logged{}
		c.Application = path
		a := NewApplication(c, log.logger())
		go a.Run(t.Context())
		says := func(after time.Duration, want float64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			got := -1.0
			if w := a.Word(time.Now()); w.Load != nil {
				got = *w.Load
			}
			if got != want {
				t.Errorf("load %v, want %v", got, want)
			}
		}
		says(5*time.Second, -1)
		if log.count("no such file") != 1 || a.Failures() < 5 {
			t.Errorf("said %d times, counted %d", log.count("no such file"), a.Failures())
		}
		write("0.5")
		says(2*time.Second, 0.5)
		write(`{"load": 0.7, "wanted": ["10.0.0.0/8"]}`)
		says(2*time.Second, 0.7)
		if w := a.Word(time.Now()); len(w.Wanted) != 1 {
			t.Errorf("wants %v", w.Wanted)
		}
		write("no number")
		says(25*time.Second, 0.7)
		says(10*time.Second, -1)
		write("0.9")
		says(2*time.Second, 0.9)
		says(27*time.Second, 0.9)
		says(5*time.Second, -1) // the application is gone, its file is there
		for _, text := range []string{"want a number", "load.expires", "says its load again"} {
			if log.count(text) == 0 {
				t.Errorf("the log lacks %q", text)
			}
		}
		if n := log.count("level=WARN"); n != 3 {
			t.Errorf("warned %d times, want one for each trouble: 3", n)
		}
	})
}

func TestApplicationsURL(t *testing.T) {
	var answer atomic.Pointer[http.HandlerFunc]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answer.Load())(w, r) }))
	defer server.Close()
	hang := make(chan struct{})
	defer close(hang)
	c, log := DefaultConfig(), &logged{}
	c.Application, c.Timeout = server.URL+"/load", 200*time.Millisecond
	a := NewApplication(c, log.logger())
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		isSaid bool
	}{
		"a number":  {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("0.7\n")) }, true},
		"an error":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "0.7", http.StatusInternalServerError) }, false},
		"nothing":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, false},
		"too much":  {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(strings.Repeat("1", MaxWord+1))) }, false},
		"no answer": {func(http.ResponseWriter, *http.Request) { <-hang }, false},
	} {
		t.Run(name, func(t *testing.T) {
			a.word, a.until = Word{}, time.Time{}
			answer.Store(&tt.answer)
			before := a.Failures()
			a.once(t.Context())
			if w := a.Word(time.Now()); (w.Load != nil) != tt.isSaid || (a.Failures() == before) != tt.isSaid {
				t.Errorf("%+v, %d failures", w, a.Failures()-before)
			}
		})
	}
}

// TestApplicationsFileIsNoPipe: a pipe would wait for its writer, and the agent with it.
func TestApplicationsFileIsNoPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "load")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, t.TempDir()} {
		if _, _, err := readFile(path); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("error %v", err)
		}
	}
}

// Nobody sends the agent elsewhere: what it may reach is more than what the application may.
func TestApplicationsURLIsNotFollowed(t *testing.T) {
	var asked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Store(true)
		w.Write([]byte("0.5"))
	}))
	defer elsewhere.Close()
	here := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer here.Close()
	c, log := DefaultConfig(), &logged{}
	c.Application = here.URL
	a := NewApplication(c, log.logger())
	a.once(t.Context())
	if asked.Load() || a.Failures() != 1 || log.count("302 Found, want 200") != 1 {
		t.Errorf("asked elsewhere: %v, %d failures, log %q", asked.Load(), a.Failures(), log.text.String())
	}
}
