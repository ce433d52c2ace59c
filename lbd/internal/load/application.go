package load

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Application asks an application for its load again and again, apart from what is measured: it may be slow.
type Application struct {
	config Config
	ask    func(context.Context) ([]byte, time.Time, error) // and when it was said
	log    *slog.Logger

	mu     sync.Mutex
	word   Word
	until  time.Time // the word counts
	broken bool      // the last question had no answer, which was said in the log
	failed uint64
}

// NewApplication returns one that has said nothing so far. The configuration has been checked.
func NewApplication(c Config, log *slog.Logger) *Application {
	a := &Application{config: c, log: log}
	switch {
	case strings.HasPrefix(c.Application, "/"):
		a.ask = func(context.Context) ([]byte, time.Time, error) { return readFile(c.Application) }
	case c.Application != "":
		// A proxy of the environment would not be asked for the machine's own load, and nobody is to send the agent elsewhere.
		client := &http.Client{
			Transport:     &http.Transport{MaxIdleConns: 1, IdleConnTimeout: 2 * c.Interval},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		a.ask = func(ctx context.Context) ([]byte, time.Time, error) { return get(ctx, client, c.Application) }
	}
	return a
}

// Run asks each interval until ctx is done.
func (a *Application) Run(ctx context.Context) {
	if a.ask == nil {
		return
	}
	tick := time.NewTicker(a.config.Interval)
	defer tick.Stop()
	for {
		a.once(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Application) once(ctx context.Context) {
	ask, cancel := context.WithTimeout(ctx, a.config.Timeout)
	defer cancel()
	text, at, err := a.ask(ask)
	age := time.Since(at)
	if err == nil && age > a.config.Expires {
		err = fmt.Errorf("said %v ago, counts for %v (load.expires): write it again, also where it has not changed", age.Round(time.Second), a.config.Expires)
	}
	var word Word
	if err == nil {
		word, err = Parse(text)
	}
	if ctx.Err() == nil {
		a.take(word, time.Now().Add(a.config.Expires-max(age, 0)), err)
	}
}

// take keeps what was said last where nothing is said now, until it expires.
func (a *Application) take(word Word, until time.Time, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil && !a.broken:
		a.log.Warn("the application does not say its load: what it said last counts until it expires", "application", a.config.Application, "err", err)
	case err == nil && a.broken:
		a.log.Info("the application says its load again", "application", a.config.Application)
	}
	a.broken = err != nil
	if err != nil {
		a.failed++
		return
	}
	a.word, a.until = word, until
}

// Word is what the application said last; the zero Word where that has expired.
func (a *Application) Word(now time.Time) Word {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.After(a.until) {
		return Word{}
	}
	return a.word
}

// Failures counts questions without a proper answer.
func (a *Application) Failures() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

// readFile reads a regular file: opening or reading a pipe would wait for its writer.
func readFile(path string) ([]byte, time.Time, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, time.Time{}, fmt.Errorf("%s is no regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxWord+1))
	return text, info.ModTime(), err
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, time.Time{}, err
	}
	req.Header.Set("User-Agent", "manycast-load")
	resp, err := client.Do(req)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, time.Time{}, fmt.Errorf("GET %s: status %s, want 200", url, resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, MaxWord+1))
	return text, time.Now(), err
}
