package service

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/bus"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

// reporter is a router that always says the same.
type reporter struct{}

func (reporter) Status(context.Context) (*igmpdv1.Status, error) {
	return &igmpdv1.Status{
		Router: "r.2", Admitted: 7, Refused: map[string]uint64{"unsigned": 3}, Forwarding: &igmpdv1.Forwarding{NoOwner: 5},
		Groups: []*igmpdv1.Group{{Group: "239.80.80.80", Private: true, Members: 2}},
		Joins:  []*igmpdv1.Join{{Group: "239.80.80.80", Requester: "10.3.0.11", Port: "lan", Packets: 9}},
	}, nil
}

// background runs a task until the test ends, and fails the test when it fails.
func background(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually tries until f succeeds or 10 s have passed.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func TestStatusSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "status.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // left by a process that was killed
		t.Fatal(err)
	}
	task, err := ListenStatus(dir, reporter{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // before anything serves
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	background(t, task.Run)
	st := &igmpdv1.Status{}
	if err := json.NewDecoder(c).Decode(st); err != nil {
		t.Fatal(err)
	}
	if st.Admitted != 7 || st.Refused["unsigned"] != 3 {
		t.Errorf("status %v", st)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info.Mode(), err)
	}
}

func TestMetrics(t *testing.T) {
	addr := freeAddress(t)
	task, err := ListenMetrics(addr, reporter{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenMetrics(addr, reporter{}); err == nil || !strings.Contains(err.Error(), "metrics.listen") {
		t.Errorf("an address in use: %v", err)
	}
	background(t, task.Run)
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{
		"manycast_igmpd_joins_admitted_total 7", `manycast_igmpd_joins_refused_total{reason="unsigned"} 3`,
		`manycast_igmpd_members{group="239.80.80.80"} 2`, "manycast_igmpd_packets_no_owner_total 5",
		`manycast_igmpd_owner_packets_total{group="239.80.80.80",port="lan",requester="10.3.0.11"} 9`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q:\n%s", want, text)
		}
	}
}

func TestStatusOnTheBus(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	cfg := bus.ServerConfig{Listen: freeAddress(t), DataDir: t.TempDir(), Log: log}
	server := bus.NewServer(cfg)
	background(t, server.Run)
	<-server.Ready()
	connect := func(role string) *bus.Conn {
		c, err := bus.Connect(bus.Config{
			URLs: []string{"nats://" + cfg.Listen}, Credentials: bus.CredentialsPath(cfg.DataDir, role), Name: role, Log: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	router, operator := connect("igmpd"), connect("admin")
	background(t, func(ctx context.Context) error { return ServeBus(ctx, router, "r.2", reporter{}) })
	for _, subject := range []string{"igmpd.r-2.status", "igmpd.status"} {
		eventually(t, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			st := &igmpdv1.Status{}
			err := operator.Request(ctx, subject, &igmpdv1.StatusRequest{}, st)
			if err == nil && st.Router != "r.2" {
				t.Errorf("status %v", st)
			}
			return err
		})
	}
}
