package edge

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/manycast/manycast/internal/bus"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// asker is a router that always says the same; it clears nobody's session but 2.2.2.2's.
type asker struct{}

func (asker) Ask(_ context.Context, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	answer := &tdpdv1.Answer{Router: "r.2"}
	switch about := r.GetAbout().(type) {
	case *tdpdv1.Request_Status:
		answer.About = &tdpdv1.Answer_Status{Status: &tdpdv1.Status{
			RouterId: "2.2.2.2", SessionsUp: 7, ServerFailures: 8, HellosRefused: map[string]uint64{"own_id": 3}, FastPath: map[string]uint64{"pushed": 8}, Labels: &tdpdv1.Labels{Used: 5},
			Steered: []*tdpdv1.Steered{{Service: "web", Reactive: true, Active: 4}}, Tagless: map[string]uint64{"told": 2}, UserBindingsRefused: map[string]uint64{"stale": 6},
			Neighbors: []*tdpdv1.Neighbor{
				{Id: "1.1.1.1:0", Agreed: &tdpdv1.Agreed{}, Bindings: 4, Sent: map[string]uint64{"KeepAlive": 9}, Adjacencies: []*tdpdv1.Adjacency{{}, {}}},
				{Id: "3.3.3.3:0"},
			},
		}}
	case *tdpdv1.Request_Clear:
		if about.Clear.GetNeighbor() != "2.2.2.2" {
			return nil, errors.New("no such neighbor")
		}
		answer.About = &tdpdv1.Answer_Clear{Clear: &tdpdv1.Cleared{Neighbor: "2.2.2.2:0"}}
	default:
		return nil, errors.New("about nothing")
	}
	return answer, nil
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

// exchange says something to the socket and returns what it says.
func exchange(t *testing.T, path, request string) []byte {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, request)
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestStatusSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "status.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // left by a process that was killed
		t.Fatal(err)
	}
	task, err := ListenStatus(dir, asker{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	background(t, task.Run)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info.Mode(), err)
	}
	for _, request := range []string{"", `{"status": {}}`} {
		answer := &tdpdv1.Answer{}
		if err := protojson.Unmarshal(exchange(t, path, request), answer); err != nil || answer.GetStatus().GetSessionsUp() != 7 {
			t.Errorf("%q: %v, %v", request, answer, err)
		}
	}
	answer := &tdpdv1.Answer{}
	if err := protojson.Unmarshal(exchange(t, path, `{"clear": {"neighbor": "2.2.2.2"}}`), answer); err != nil || answer.GetClear().GetNeighbor() != "2.2.2.2:0" {
		t.Errorf("clear: %v, %v", answer, err)
	}
	for request, want := range map[string]string{
		`{"clear": {}}`: "no such neighbor", `{`: "request", `{"x": 1}`: "unknown field", strings.Repeat(" ", requestMax+1): "more than 4096 bytes",
	} {
		var e struct{ Error string }
		if text := exchange(t, path, request); json.Unmarshal(text, &e) != nil || !strings.Contains(e.Error, want) {
			t.Errorf("%.20q: %s", request, text)
		}
	}
}

func TestMetrics(t *testing.T) {
	addr := freeAddress(t)
	task, err := ListenMetrics(addr, asker{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenMetrics(addr, asker{}); err == nil || !strings.Contains(err.Error(), "metrics.listen") {
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
	for _, want := range []string{
		"manycast_tdpd_sessions_up_total 7", `manycast_tdpd_hellos_refused_total{reason="own_id"} 3`, "manycast_tdpd_labels_used 5", `manycast_tdpd_fast_path_packets_total{what="pushed"} 8`,
		"manycast_tdpd_services_steered 1", `manycast_tdpd_user_bindings_refused_total{reason="stale"} 6`,
		`manycast_tdpd_users_active{service="web"} 4`, `manycast_tdpd_tagless_total{what="told"} 2`,
		`manycast_tdpd_session_operational{neighbor="1.1.1.1:0"} 1`, `manycast_tdpd_session_operational{neighbor="3.3.3.3:0"} 0`,
		`manycast_tdpd_messages_sent_total{neighbor="1.1.1.1:0",type="KeepAlive"} 9`, `manycast_tdpd_adjacencies{neighbor="1.1.1.1:0"} 2`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("metrics lack %q:\n%s", want, data)
		}
	}
}

// startBus is a bus, and how to connect to it.
func startBus(t *testing.T) (connect func(role string) *bus.Conn, dir string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := bus.ServerConfig{Listen: freeAddress(t), DataDir: t.TempDir(), Log: log}
	server := bus.NewServer(cfg)
	background(t, server.Run)
	<-server.Ready()
	return func(role string) *bus.Conn {
		c, err := bus.Connect(bus.Config{
			URLs: []string{"nats://" + cfg.Listen}, Credentials: bus.CredentialsPath(cfg.DataDir, role), Name: role, Log: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}, cfg.DataDir
}

func TestAskedOnTheBus(t *testing.T) {
	connect, _ := startBus(t)
	router, operator := connect("tdpd"), connect("admin")
	background(t, func(ctx context.Context) error { return ServeBus(ctx, router, "r.2", asker{}) })
	request := func(subject string, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer := &tdpdv1.Answer{}
		return answer, operator.Request(ctx, subject, r, answer)
	}
	status := &tdpdv1.Request{About: &tdpdv1.Request_Status{}}
	for _, subject := range []string{"tdpd.ask", "tdpd.ask.r-2"} {
		eventually(t, func() error {
			answer, err := request(subject, status)
			if err == nil && (answer.GetRouter() != "r.2" || answer.GetStatus().GetSessionsUp() != 7) {
				t.Errorf("%s: %v", subject, answer)
			}
			return err
		})
	}
	clear := &tdpdv1.Request{About: &tdpdv1.Request_Clear{Clear: &tdpdv1.ClearRequest{Neighbor: "2.2.2.2"}}}
	if answer, err := request("tdpd.ask.r-2", clear); err != nil || answer.GetClear().GetNeighbor() != "2.2.2.2:0" {
		t.Errorf("clear: %v, %v", answer, err)
	}
	if _, err := request("tdpd.ask", clear); err == nil || !strings.Contains(err.Error(), "name it") {
		t.Errorf("clear at all: %v", err)
	}
	// What a router may do does not include asking another one, which could clear its sessions.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := router.Request(ctx, "tdpd.ask.r-2", clear, &tdpdv1.Answer{}); !errors.Is(err, bus.ErrDenied) {
		t.Errorf("a router cleared a session: %v", err)
	}
}
