package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/testnet"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// With one of these variables set the test binary is tdpd, or an agent that registers server web.s at a bus, whose data directory is the
// variable's value, or a server on the control channel, whose directory that is.
const (
	daemonEnv = "MANYCAST_TEST_TDPD"
	agentEnv  = "MANYCAST_TEST_AGENT"
	memberEnv = "MANYCAST_TEST_MEMBER"
)

func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		main()
		return
	}
	if data := os.Getenv(agentEnv); data != "" {
		fmt.Println(register(data))
		return
	}
	if dir := os.Getenv(memberEnv); dir != "" {
		fmt.Println(beTheMember(dir))
		return
	}
	os.Exit(m.Run())
}

// register keeps a registration renewed until SIGTERM, and takes it back then.
func register(data string) error {
	c, err := bus.Connect(bus.Config{
		URLs: []string{busURL}, Credentials: bus.CredentialsPath(data, "agent"), Name: "agent", Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	value, err := proto.Marshal(&allocv1.Registration{Name: "s", Service: "web", Address: "10.9.0.80", Healthy: true})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	bucket := c.Bucket(bus.BucketConfig{Name: bus.BucketServers})
	for ctx.Err() == nil {
		if _, err := bucket.Put(ctx, "web.s", value); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return bucket.Delete(context.Background(), "web.s")
}

// routers of a rig, the first one at the edge.
var routers = []string{"r1", "r2", "r3"}

// rig is r1 a--a r2 b--a r3 c--eth0 s: s is a server, and knows nothing of labels.
type rig struct {
	t       *testing.T
	dir     string
	nodes   map[string]*testnet.Node
	daemons map[string]*testnet.Process
	extra   string            // of all configurations
	of      map[string]string // of single ones, before it
	whole   map[string]string // in place of all this, but for directories
	caps    string            // what the daemons have beside their units', "+bpf"
}

func newRig(t *testing.T) *rig { return newRigIn(t, testnet.NewMPLS(t)) }

func newRigIn(t *testing.T, n *testnet.Net) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), nodes: map[string]*testnet.Node{}, daemons: map[string]*testnet.Process{}}
	for _, name := range append(routers, "s") {
		node := n.Node(name)
		r.nodes[name] = node
		node.Sysctl("net.ipv4.ip_forward", "1")
		node.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		node.Sysctl("net.ipv4.conf.default.rp_filter", "0")
	}
	n.Link(r.nodes["r1"], "a", "10.0.12.1/24", r.nodes["r2"], "a", "10.0.12.2/24")
	n.Link(r.nodes["r2"], "b", "10.0.23.2/24", r.nodes["r3"], "a", "10.0.23.3/24")
	n.Link(r.nodes["r3"], "c", "10.9.0.3/24", r.nodes["s"], "eth0", "10.9.0.80/24")
	for i, name := range routers {
		r.nodes[name].Address("lo", fmt.Sprintf("%d.%d.%d.%d/32", i+1, i+1, i+1, i+1))
	}
	for _, x := range [][3]string{
		{"r1", "10.9.0.0/24", "10.0.12.2"}, {"r1", "10.0.23.0/24", "10.0.12.2"}, {"r1", "2.2.2.2/32", "10.0.12.2"}, {"r1", "3.3.3.3/32", "10.0.12.2"},
		{"r2", "10.9.0.0/24", "10.0.23.3"}, {"r2", "1.1.1.1/32", "10.0.12.1"}, {"r2", "3.3.3.3/32", "10.0.23.3"},
		{"r3", "10.0.12.0/24", "10.0.23.2"}, {"r3", "1.1.1.1/32", "10.0.23.2"}, {"r3", "2.2.2.2/32", "10.0.23.2"}, {"s", "0.0.0.0/0", "10.9.0.3"},
	} {
		r.run(x[0], "ip", "route", "add", x[1], "via", x[2], "metric", "20")
	}
	return r
}

// busURL is where the bus of a rig serves, in r1.
const busURL = "nats://10.0.12.1:4222"

// startBus runs a bus in r1, which all routers use.
func (r *rig) startBus() {
	r.t.Helper()
	if _, err := os.Stat(manycast); err != nil {
		r.t.Fatalf("%v: make test-vm builds it", err)
	}
	r.nodes["r1"].Start(manycast, "bus", "--data", r.state("bus"), "--listen", "10.0.12.1:4222")
	testnet.Eventually(r.t, 30*time.Second, func() bool {
		_, err := r.nodes["r1"].Run(r.cli("bus", "status")...)
		return err == nil
	}, "the bus")
	r.extra += fmt.Sprintf("[bus]\nurls = [%q]\ncredentials = %q\n", busURL, bus.CredentialsPath(r.state("bus"), "tdpd"))
}

// manycast is the operator's command.
const manycast = "../bin/manycast"

// cli is a command line of the operator's.
func (r *rig) cli(args ...string) []string {
	return append([]string{manycast, "--bus", busURL, "--credentials", bus.CredentialsPath(r.state("bus"), "admin")}, args...)
}

// run runs a program in a node, and has to succeed.
func (r *rig) run(node string, argv ...string) string {
	r.t.Helper()
	out, err := r.nodes[node].Run(argv...)
	if err != nil {
		r.t.Fatalf("%s: %v: %v\n%s", node, argv, err, out)
	}
	return out
}

// start runs tdpd in a node, with its unit's capabilities alone.
func (r *rig) start(name string) {
	r.t.Helper()
	caps := "-all,+net_admin,+net_bind_service" + r.caps
	r.daemons[name] = r.nodes[name].Start("env", daemonEnv+"=1", "setpriv", "--no-new-privs", "--bounding-set", caps, "--inh-caps", caps, "--",
		os.Args[0], "--config", r.configure(name))
}

// configure writes a router's file.
func (r *rig) configure(name string) string {
	r.t.Helper()
	number := name[1:]
	text := fmt.Sprintf(`
name = %q
router_id = "%[2]s.%[2]s.%[2]s.%[2]s"
state_dir = %[3]q
runtime_dir = %[4]q
interfaces = ["a", "b"]
[log]
level = "debug"
[hello]
link_hold = "3s"
%[5]s`, name, number, r.state(name), filepath.Join(r.dir, name+"-run"), r.of[name]+r.extra)
	if whole, ok := r.whole[name]; ok {
		text = fmt.Sprintf("name = %q\nstate_dir = %q\nruntime_dir = %q\n%s", name, r.state(name), filepath.Join(r.dir, name+"-run"), whole)
	}
	config := filepath.Join(r.dir, name+".toml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return config
}

func (r *rig) state(name string) string { return filepath.Join(r.dir, name) }

// ask asks a router at its status socket; false: it does not answer.
func (r *rig) ask(name, request string) (*tdpdv1.Answer, bool) {
	c, err := net.Dial("unix", filepath.Join(r.state(name), "status.sock"))
	if err != nil {
		return nil, false
	}
	defer c.Close()
	io.WriteString(c, request)
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		r.t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatal(err)
	}
	answer := &tdpdv1.Answer{}
	if err := protojson.Unmarshal(text, answer); err != nil {
		r.t.Fatalf("%s of %s: %v\n%s", request, name, err, text)
	}
	return answer, true
}

// operational waits until a router has that many sessions.
func (r *rig) operational(name string, sessions int) {
	r.t.Helper()
	testnet.Eventually(r.t, 30*time.Second, func() bool {
		answer, ok := r.ask(name, "")
		n := 0
		for _, neighbor := range answer.GetStatus().GetNeighbors() {
			if neighbor.GetAgreed() != nil {
				n++
			}
		}
		return ok && n == sessions
	}, sessions, " sessions of ", name)
}

// tree waits until the labels of the server's tree lead to it, and returns them.
func (r *rig) tree() (labels []uint32) {
	r.t.Helper()
	testnet.Eventually(r.t, 30*time.Second, func() bool {
		labels = nil
		request := `{"step": {"address": "10.9.0.80"}}`
		for i, name := range routers {
			answer, ok := r.ask(name, request)
			step := answer.GetStep()
			if !ok || len(step.GetHops()) != 1 || step.GetFec() != "10.9.0.80/32" {
				return false
			}
			hop := step.GetHops()[0]
			if i == len(routers)-1 {
				return step.GetAction() == "pop" && hop.GetVia() == "10.9.0.80"
			}
			if hop.Label == nil {
				return false
			}
			labels = append(labels, hop.GetLabel())
			request = fmt.Sprintf(`{"step": {"label": %d}}`, hop.GetLabel())
		}
		return false
	}, "the tree of the server")
	return labels
}
