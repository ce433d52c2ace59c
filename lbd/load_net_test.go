package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// sheddingService has one server, whom its own load decides for.
const sheddingService = `
name: web
vip: 192.0.2.80
group: 239.80.80.80
ports: [tcp/80]
balance: {shed: 90%}
servers:
  - {name: s1, address: 10.9.0.2, portions: [0.0.0.0/0]}
`

// loaded is an agent and a director as processes, and users on the other side of the latter.
//
//	u (10.9.0.100-115) --- users [d: br0] s1 --- eth0 (10.9.0.2) s1
type loaded struct {
	t            *testing.T
	user, server *testnet.Node
	agent        *testnet.Process
}

const loadedUsers = 16

func newLoaded(t *testing.T, section string) *loaded {
	t.Helper()
	n := testnet.New(t)
	l := &loaded{t: t, user: n.Node("u"), server: n.Node("s1")}
	edge := n.Node("d")
	n.Link(l.user, "eth0", "10.9.0.100/24", edge, "users", "")
	for i := 1; i < loadedUsers; i++ {
		l.user.Address("eth0", loadedUser(i)+"/24")
	}
	n.Link(l.server, "eth0", "10.9.0.2/24", edge, "s1", "")
	edge.Bridge("br0", false, "users", "s1")
	port, err := edge.Netlink().LinkByName("users")
	must(t, err)
	l.user.Route("192.0.2.0/24", "10.9.0.254") // the director, by its port's own address
	for _, argv := range [][]string{
		{"ip", "neigh", "add", "10.9.0.254", "lladdr", port.Attrs().HardwareAddr.String(), "dev", "eth0"}, {"ip", "link", "set", "lo", "up"},
	} {
		node := l.user
		if argv[1] == "link" {
			node = l.server
		}
		if out, err := node.Run(argv...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	edge.Start(loadedRole(t, "director", fmt.Sprintf("name = \"d1\"\ninterfaces = [\"users\"]\nbpffs = %q\nstate_dir = %q\n",
		filepath.Join(n.BPFFS(), "director"), t.TempDir()))...)
	l.agent = l.server.Start(loadedRole(t, "agent", fmt.Sprintf("name = \"s1\"\ninterface = \"eth0\"\nbpffs = %q\nstate_dir = %q\n"+
		"[keys]\nunsigned = true\n[metrics]\nlisten = \"127.0.0.1:9100\"\n[load]\ninterval = \"200ms\"\n%s\n",
		filepath.Join(n.BPFFS(), "agent"), t.TempDir(), section))...)
	testnet.Eventually(t, 20*time.Second, func() bool { return l.value("manycast_agent_load_cpu_ratio") >= 0 }, "a load")
	return l
}

func loadedUser(i int) string { return fmt.Sprintf("10.9.0.%d", 100+i) }

func loadedRole(t *testing.T, role, config string) []string {
	argv := lbd(t, role, config)
	must(t, os.WriteFile(filepath.Join(filepath.Dir(argv[len(argv)-1]), "services.yaml"), []byte(sheddingService), 0o600))
	return argv
}

// listen takes VIP:80 once the agent has added the VIP.
func (l *loaded) listen() net.Listener {
	l.t.Helper()
	var listener net.Listener
	testnet.Eventually(l.t, 10*time.Second, func() (ok bool) {
		var err error
		listener, err = l.server.Listen("tcp4", "192.0.2.80:80")
		return err == nil
	}, "the VIP")
	l.t.Cleanup(func() { listener.Close() })
	return listener
}

// dial opens a connection of a user to the VIP.
func (l *loaded) dial(user int) (c net.Conn, err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(loadedUser(user))}, Timeout: 3 * time.Second}
	err = l.user.Do(func() error {
		c, err = d.Dial("tcp4", "192.0.2.80:80")
		return err
	})
	return c, err
}

// hold opens one that stays until the end of the test.
func (l *loaded) hold(user int) net.Conn {
	l.t.Helper()
	var c net.Conn
	testnet.Eventually(l.t, 10*time.Second, func() (ok bool) { // the director may have just begun
		var err error
		c, err = l.dial(user)
		return err == nil
	}, "a connection")
	l.t.Cleanup(func() { c.Close() })
	return c
}

// echoAll answers what users say.
func echoAll(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // until the user has enough
		}()
	}
}

// value is a metric of the agent; -1: it is not there.
func (l *loaded) value(name string) float64 {
	out, err := l.server.Run("curl", "-s", "http://127.0.0.1:9100/metrics")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(out) {
		if words := strings.Fields(line); len(words) == 2 && strings.HasPrefix(words[0], name) {
			if v, err := strconv.ParseFloat(words[1], 64); err == nil {
				return v
			}
		}
	}
	return -1
}

// TestNetLoadIsMeasured: connections, accepts and bytes of a real application are what users did, through the programs of a director
// and an agent; what the application says by HTTP is passed on.
func TestNetLoadIsMeasured(t *testing.T) {
	t.Parallel() // it waits for what is smoothed over seconds
	l := newLoaded(t, `application = "http://127.0.0.1:8080/load"`)
	said, err := l.server.Listen("tcp4", "127.0.0.1:8080")
	must(t, err)
	word := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"load": 0.4, "wanted": ["10.0.0.0/8"]}`) })}
	go word.Serve(said)
	t.Cleanup(func() { word.Close() })
	go echoAll(l.listen())
	for i := range 20 {
		l.hold(i % loadedUsers)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return l.value("manycast_agent_load_connections") == 20 }, "20 connections")
	for name, want := range map[string]float64{"load_application_ratio": 0.4, "load_ratio": 0.4, "load_wanted_portions": 1, "load_queue": 0} {
		testnet.Eventually(t, 5*time.Second, func() bool { return l.value("manycast_agent_"+name) == want }, name, " of ", want)
	}

	// About thirty connections a second, 8 kB there and back on each.
	const size = 8 << 10
	done, began := 0, time.Now()
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	for time.Since(began) < 20*time.Second {
		<-tick.C
		c, err := l.dial(0)
		must(t, err)
		_, err = c.Write(make([]byte, size))
		must(t, err)
		_, err = io.ReadFull(c, make([]byte, size))
		must(t, err)
		c.Close()
		done++
	}
	accepts, bytes := l.value("manycast_agent_load_accepts_per_second"), l.value("manycast_agent_load_bytes_per_second")
	rate := float64(done) / time.Since(began).Seconds()
	t.Logf("%.1f connections a second: accepts %.1f, bytes %.0f a second", rate, accepts, bytes)
	if accepts < 0.75*rate || accepts > 1.25*rate {
		t.Errorf("accepts %.1f a second, users opened %.1f", accepts, rate)
	}
	if payload := 2 * size * rate; bytes < 0.75*payload || bytes > 1.5*payload {
		t.Errorf("bytes %.0f a second, users sent and got %.0f", bytes, payload)
	}
	if hot := l.value("manycast_agent_load_hot_portions"); hot < 1 {
		t.Errorf("%v hot portions, though one user does nearly all", hot)
	}
	l.stop()
}

// TestNetQueueIsMeasured: connections that the application does not accept.
func TestNetQueueIsMeasured(t *testing.T) {
	t.Parallel() // it waits for what is smoothed over seconds
	l := newLoaded(t, "")
	l.listen()
	for i := range 12 {
		l.hold(i)
	}
	testnet.Eventually(t, 30*time.Second, func() bool {
		return l.value("manycast_agent_load_queue") == 12 && l.value("manycast_agent_load_connections") == 12
	}, "12 connections that wait")
	l.stop()
}

// TestNetOverload: an application that says that it has too much to do: new connections of more and more users are refused, at once, and those
// that are there go on; when it says that it has less to do, everybody is served.
func TestNetOverload(t *testing.T) {
	t.Parallel() // it waits for what is smoothed over seconds
	file := filepath.Join(t.TempDir(), "load")
	say := func(text string) {
		must(t, os.WriteFile(file+".new", []byte(text), 0o644))
		must(t, os.Rename(file+".new", file))
	}
	say("0.5")
	l := newLoaded(t, fmt.Sprintf("application = %q", file))
	go echoAll(l.listen())
	var held []net.Conn
	for i := range loadedUsers {
		held = append(held, l.hold(i))
	}
	refused := func() (n int) {
		for i := range loadedUsers {
			c, err := l.dial(i)
			switch {
			case err == nil:
				c.Close()
			case errors.Is(err, syscall.ECONNREFUSED):
				n++
			default:
				t.Fatalf("user %d: %v", i, err)
			}
		}
		return n
	}
	if n := refused(); n != 0 {
		t.Fatalf("%d users refused before there is too much to do", n)
	}
	say("3")
	testnet.Eventually(t, 40*time.Second, func() bool { return refused() >= loadedUsers/2 }, "half of the users to be refused")
	if share := l.value("manycast_agent_shed_ratio"); share < 0.2 || l.value("manycast_agent_service_refused_total") < 1 {
		t.Errorf("metrics: %.2f of the users refused", share)
	}
	for i, c := range held {
		must(t, c.SetDeadline(time.Now().Add(3*time.Second)))
		_, err := c.Write([]byte("x"))
		must(t, err)
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("the connection of user %d that was there: %v", i, err)
		}
	}
	say("0.1")
	testnet.Eventually(t, 60*time.Second, func() bool { return l.value("manycast_agent_shed_ratio") == 0 }, "nobody to be refused any more")
	if n := refused(); n != 0 {
		t.Errorf("%d users refused when there is little to do", n)
	}
	for _, text := range []string{"refuses new connections of some users", "refuses nobody any more"} {
		if n := strings.Count(l.agent.Output(), text); n != 1 {
			t.Errorf("the log says %d times %q", n, text)
		}
	}
	l.stop()
}

// stop ends the agent as systemd does.
func (l *loaded) stop() {
	l.t.Helper()
	l.agent.Signal(syscall.SIGTERM)
	if err := l.agent.Wait(); err != nil {
		l.t.Errorf("clean stop: %v\n%s", err, l.agent.Output())
	}
}
