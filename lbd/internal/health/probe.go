package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

// Prober asks the application once. A nil error is a success.
type Prober interface {
	Probe(ctx context.Context) error
}

func newProber(c Config) (Prober, error) {
	switch c.Type {
	case "tcp":
		if _, _, err := net.SplitHostPort(c.Target); err != nil {
			return nil, fmt.Errorf("health: target %q of type tcp: want host:port: %w", c.Target, err)
		}
		return tcpProber{c.Target}, nil
	case "http":
		u, err := url.Parse(c.Target)
		if err != nil {
			return nil, fmt.Errorf("health: target of type http: %w", err)
		}
		if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("health: target %q of type http: want http://host/path or https://host/path", c.Target)
		}
		return newHTTPProber(c.Target), nil
	case "command":
		if strings.TrimSpace(c.Target) == "" {
			return nil, errors.New("health: type command: target is empty, want a command line")
		}
		return commandProber{c.Target}, nil
	}
	return nil, fmt.Errorf("health: type %q: want none, tcp, http or command", c.Type)
}

// tcpProber succeeds when a connection comes about.
type tcpProber struct{ address string }

func (p tcpProber) Probe(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// httpProber succeeds on a final status of 200 to 299. Every probe is a fresh connection: a kept one would say nothing about
// whether the application still accepts.
type httpProber struct {
	url    string
	client *http.Client
}

func newHTTPProber(url string) httpProber {
	return httpProber{url, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (p httpProber) Probe(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "manycast-health")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("GET %s: status %s", p.url, resp.Status)
	}
	// A body that breaks off is a failure too; 1 MB is enough to tell.
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return err
}

// commandProber succeeds when the command line, run by sh, exits with 0.
type commandProber struct{ line string }

func (p commandProber) Probe(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", p.line)
	killGroup(cmd)
	cmd.WaitDelay = 100 * time.Millisecond
	out := &tail{max: 256}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(string(out.b)); text != "" {
			return fmt.Errorf("%q: %w: %s", p.line, err, text)
		}
		return fmt.Errorf("%q: %w", p.line, err)
	}
	return nil
}

// tail keeps the last max bytes written to it.
type tail struct {
	b   []byte
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > t.max {
		t.b = t.b[len(t.b)-t.max:]
	}
	return len(p), nil
}
