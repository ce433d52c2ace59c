package scenario

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/forger"
	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/service"
)

// Nodes with users in scenario dyntcp, beside nodeUsers, whose hosts all run lbd client.
const (
	nodePlain  = "plain"  // hosts that know nothing of dynamic TCP
	nodeSingle = "single" // one program is run by `manycast connect`
)

// dyntcp is one run of the scenario of that name.
type dyntcp struct {
	grouped
	rand       *rand.Rand
	places     map[string]netip.AddrPort // of the servers, where streams live
	single     *helper                   // what `manycast connect` runs
	paths      *probe.Paths              // of users with dynamic TCP, by the host on the path
	attackers  *attackers
	hosts      map[string]clientstatus.Status // by node, of late
	plain, own []time.Duration                // handshakes of users without, and with
	astray     []string                       // connections that were where no server is
}

// DynTCP brings the lab of that name up, has users with dynamic TCP and without go from server to server, and takes it down again. The report is
// there whenever the users worked; the error says what kept the scenario from its end.
func DynTCP(ctx context.Context, s *lab.Store, o Options) (*report.Report, error) {
	if o.Duration < MinDuration {
		return nil, fmt.Errorf("duration %v: want at least %v", o.Duration, MinDuration)
	}
	if o.Clients < 2 {
		return nil, fmt.Errorf("clients %d: want at least 2, of whom half have dynamic TCP", o.Clients)
	}
	d := &dyntcp{
		grouped: grouped{
			stage: stage{o: o, store: s, servers: []string{"s1", "s2", "s3"}}, processes: []string{"app", "agent"}, says: "[transfer, forward]",
		},
		rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), places: map[string]netip.AddrPort{}, hosts: map[string]clientstatus.Status{},
	}
	if err := d.prepare(ctx, "dyntcp", o.Set); err != nil {
		return nil, err
	}
	defer d.lab.Close()
	err := errors.Join(d.run(ctx), d.down(ctx))
	if d.began.IsZero() {
		return nil, err
	}
	return d.report(), err
}

func (d *dyntcp) run(ctx context.Context) (err error) {
	if err := d.arrive(); err != nil {
		return err
	}
	watcher, err := d.watch(d.web)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.stop()) }()
	d.o.Progress.Phase("ready")
	if _, err := d.web.await(ctx, "all servers serve", d.everybody); err != nil {
		return err
	}
	d.settle(0)
	if err := d.move(ctx); err != nil {
		return err
	}
	if err := d.waitServed(ctx); err != nil {
		return err
	}
	stop, err := d.lookOn(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.tally.Periods = []report.Period{{Strategy: string(service.Transfer), Start: time.Now()}}
	d.mu.Unlock()
	err = d.work(ctx, d.happens,
		d.client(nodeUsers, "--idle", idleEvery.String()), d.client(nodePlain, "--idle", idleEvery.String()), d.streams(nodeUsers), d.streams(nodePlain))
	d.mu.Lock()
	d.tally.Periods[0].End = time.Now()
	d.mu.Unlock()
	return errors.Join(err, stop())
}

// lookOn has what passes by be seen from all sides, and lets attackers in.
func (d *dyntcp) lookOn(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for _, s := range stops {
			err = errors.Join(err, s())
		}
		return err
	}
	begin := func(start func() (func() error, error)) {
		if err == nil {
			var s func() error
			if s, err = start(); err == nil {
				stops = append(stops, s)
			}
		}
	}
	begin(func() (func() error, error) { return d.sniff(ctx, "r1", "users") })
	begin(func() (func() error, error) { return d.sniffEvil(ctx) })
	begin(func() (func() error, error) {
		ns, err := d.lab.Namespace(nodeOnPath)
		if err != nil {
			return nil, err
		}
		users, err := netip.ParsePrefix(d.vars["extended"])
		if err != nil {
			return nil, err
		}
		if d.paths, err = probe.FollowPaths(ns, "users", users, forger.Port); err != nil {
			return nil, err
		}
		return d.paths.Stop, nil
	})
	begin(func() (func() error, error) {
		if d.attackers, err = d.openAttackers(); err != nil {
			return nil, err
		}
		return d.attackers.close, nil
	})
	if err != nil {
		err = errors.Join(err, stop())
	}
	return stop, err
}

// sniffEvil watches whether the host off the path gets anything of users' connections.
func (d *dyntcp) sniffEvil(ctx context.Context) (done func() error, err error) {
	at, err := d.lab.Topology().Address(nodeOffPath, "eth0")
	if err != nil {
		return nil, err
	}
	s, err := startSniffer(ctx, d.lab, nodeOffPath, "eth0", "tcp and dst host "+at.Addr().String(), os.DevNull, true)
	if err != nil {
		return nil, err
	}
	return func() error {
		n, err := s.stop()
		if err != nil {
			return err
		}
		d.check("no segment comes to the host of the attacker", n == 0, "%d", n)
		return nil
	}, nil
}

// arrive takes users, half of them with dynamic TCP, and one more who runs one program with it.
func (d *dyntcp) arrive() error {
	for _, server := range d.servers {
		at, err := d.lab.Topology().Address(server, "eth0")
		if err != nil {
			return err
		}
		port, err := netip.ParseAddrPort(at.Addr().String() + ":" + d.vars["streams"])
		if err != nil {
			return err
		}
		d.places[server] = port
	}
	return errors.Join(d.admit(nodeUsers, (d.o.Clients+1)/2), d.admit(nodePlain, d.o.Clients/2), d.admit(nodeSingle, 1))
}

// happens has all phases go by, while one program more runs that `manycast connect` has started.
func (d *dyntcp) happens(ctx context.Context) (err error) {
	streams := d.streams(nodeSingle)
	connect := []string{"manycast", "connect", "--config", d.lab.Dir(nodeUsers) + "/client.toml", "--bpffs", d.lab.BPFFS() + "/" + nodeSingle, "--"}
	if d.single, err = startHelper(d.lab, nodeSingle, d.see, append(connect, streams.argv...)...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.single.stop(), d.checkConnectGone()) }()
	return d.runPhases(ctx, d.plan(), func(ctx context.Context, _ string) error { return d.checkFollowed(ctx) })
}

// checkConnectGone: `manycast connect` leaves nothing behind its command.
func (d *dyntcp) checkConnectGone() error {
	run := filepath.Dir(d.socket(nodeSingle))
	groups, err := exec.Command("find", "/sys/fs/cgroup", "-type", "d", "-name", "manycast-"+filepath.Base(run)).Output()
	if err != nil {
		return fmt.Errorf("control groups of manycast connect: %w", err)
	}
	left := strings.Fields(string(groups))
	for _, path := range []string{run, filepath.Join(d.lab.BPFFS(), nodeSingle, filepath.Base(run))} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			left = append(left, path)
		}
	}
	d.check("manycast connect leaves nothing behind", len(left) == 0, "%d%s", len(left), some(left))
	return nil
}

// isExtended says whether a user's connections say where they live.
func (d *dyntcp) isExtended(user netip.Addr) bool { return d.home(user) != nodePlain }

func (d *dyntcp) isPlain(user netip.Addr) bool { return !d.isExtended(user) }

// report judges everything, once it is over.
func (d *dyntcp) report() *report.Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &report.Report{Scenario: "dyntcp"}
	d.judge(r, d.mayWaitOften())
	d.checkMoves(d.plan(), expectedDynTCP)
	r.DynTCP = d.judgeConnections()
	r.Checks = d.checks
	return r
}
