package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmd"
	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
)

func TestStatus(t *testing.T) {
	b := cmdtest.Start(t)
	b.Service(cmdtest.Web)
	var rows []struct {
		Bucket string
		Keys   int
	}
	if err := json.Unmarshal([]byte(b.OK("bus", "status", "-o", "json")), &rows); err != nil {
		t.Fatal(err)
	}
	keys := map[string]int{}
	for _, r := range rows {
		keys[r.Bucket] = r.Keys
	}
	if len(rows) != len(bus.Buckets()) || keys[bus.BucketServices] != 1 || keys[bus.BucketMoves] != 0 {
		t.Errorf("%+v", rows)
	}
	r := cmdtest.Run(t, "", "bus", "status", "--bus", "nats://127.0.0.1:1", "--credentials", b.Credentials(), "--timeout", "200ms")
	if r.Error == nil {
		t.Error("no error without a bus")
	}
}

// serving is `manycast bus` in the background.
type serving struct {
	url, dir string
	stop     func() error
}

// serve runs the command and waits until its clients can connect.
func serve(t *testing.T, dir string) serving {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	l.Close()
	var errs bytes.Buffer
	root := cmd.New(&cmdutil.Factory{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &errs, Now: time.Now})
	root.SetArgs([]string{"bus", "--data", dir, "--listen", listen, "--log", "error"})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	s := serving{url: "nats://" + listen, dir: dir, stop: sync.OnceValue(func() error {
		cancel()
		return <-ended
	})}
	t.Cleanup(func() { _ = s.stop() })
	for deadline := time.Now().Add(20 * time.Second); ; {
		if r := s.run(t, "bus", "status"); r.Error == nil {
			return s
		} else if time.Now().After(deadline) {
			t.Fatalf("bus does not serve: %v\n%s", r.Error, errs.String())
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (s serving) run(t *testing.T, args ...string) cmdtest.Result {
	t.Helper()
	return cmdtest.Run(t, "", append(args, "--bus", s.url, "--credentials", bus.CredentialsPath(s.dir, "admin"), "--timeout", "5s")...)
}

func TestBusKeepsWhatItHas(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bus")
	s := serve(t, dir)
	if r := s.run(t, "service", "create", "web", "--vip", "192.0.2.80", "--group", "239.80.80.80", "--port", "tcp/80"); r.Error != nil {
		t.Fatal(r.Error)
	}
	second := cmdtest.Run(t, "", "bus", "--data", dir, "--listen", "127.0.0.1:0", "--log", "error")
	if second.Error == nil || !strings.Contains(second.Error.Error(), dir) {
		t.Errorf("second bus: %v", second.Error)
	}
	if err := s.stop(); err != nil {
		t.Fatalf("stopped: %v", err)
	}
	s = serve(t, dir)
	if r := s.run(t, "service", "list"); r.Error != nil || !strings.Contains(r.Out, "web") {
		t.Fatalf("after a restart: %v\n%s", r.Error, r.Out)
	}
	if err := s.stop(); err != nil {
		t.Fatalf("stopped: %v", err)
	}
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream/jetstream/*/streams/KV_services/msgs/*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("%v, %v", blocks, err)
	}
	if err := os.WriteFile(blocks[0], []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := cmdtest.Run(t, "", "bus", "--data", dir, "--listen", "127.0.0.1:0", "--log", "error")
	if r.Error == nil || !strings.Contains(r.Error.Error(), dir+" is damaged") || !strings.Contains(r.Error.Error(), "backup") {
		t.Errorf("a damaged bus: %v", r.Error)
	}
}

func TestInit(t *testing.T) {
	b := cmdtest.Start(t)
	if out := b.OK("bus", "init"); strings.Count(out, "is there") != len(bus.Buckets()) {
		t.Error(out)
	}
	b.Refused([]string{"replicas"}, "bus", "init", "--replicas", "3") // one server
	b.Refused([]string{"1 to 5"}, "bus", "init", "--replicas", "0")
	agent := strings.Replace(b.Credentials(), "admin", "agent", 1)
	r := cmdtest.Run(t, "", "bus", "init", "--bus", b.URL(), "--credentials", agent)
	if r.Error == nil || !strings.Contains(r.Error.Error(), "role agent") {
		t.Errorf("an agent: %v", r.Error)
	}
}

func TestNATSConfig(t *testing.T) {
	dir := t.TempDir()
	first := cmdtest.Run(t, "", "bus", "nats-config", "--data", dir)
	if first.Error != nil {
		t.Fatal(first.Error)
	}
	if again := cmdtest.Run(t, "", "bus", "nats-config", "--data", dir); again.Out != first.Out {
		t.Errorf("another time %v\n%s", again.Error, again.Out)
	}
	for _, role := range []string{"admin", "director", "agent", "leader", "igmpd", "tdpd", "dnsd"} {
		info, err := os.Stat(bus.CredentialsPath(dir, role))
		if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(first.Out, "# "+role+"\n") {
			t.Errorf("role %s: %v\n%s", role, err, first.Out)
		}
		data, err := os.ReadFile(bus.CredentialsPath(dir, role))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Fields(string(data))
		if seed := lines[len(lines)-1]; !strings.HasPrefix(seed, "SU") || strings.Contains(first.Out, seed) {
			t.Errorf("the seed of %s is printed, or is no seed:\n%s", role, first.Out)
		}
	}
	if err := os.Chmod(bus.CredentialsPath(dir, "agent"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := cmdtest.Run(t, "", "bus", "nats-config", "--data", dir); r.Error == nil || !strings.Contains(r.Error.Error(), "chmod 600") {
		t.Errorf("credentials that others can read: %v", r.Error)
	}
}
