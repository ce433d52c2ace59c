package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/scenario"
)

const (
	labName   = "bench"
	packetGap = 200 * time.Microsecond // of the flow of all users
	moves     = 10                     // of a lab
	afterMove = 300 * time.Millisecond // more than the servers' settle
)

// world is the lab's multicast topology, up, with all that the bus says of its service.
type world struct {
	*lab.Lab
	watch *exec.Cmd

	mu      sync.Mutex
	epochs  []allocation
	moves   []scenario.Move
	changed chan struct{} // closed and replaced at news
}

// allocation is one that was committed: when the bus wrote it.
type allocation struct {
	alloc.Allocation
	at time.Time
}

// withLab brings the lab up, waits until all three servers serve, and takes the lab down again.
func withLab(ctx context.Context, bin string, set map[string]string, do func(*world) error) (err error) {
	source, err := lab.BuiltIn("multicast")
	if err != nil {
		return err
	}
	store := &lab.Store{Root: lab.DefaultRoot, Bin: bin}
	l, err := store.Up(ctx, source, labName, set)
	if err != nil {
		return err
	}
	defer func() {
		_, downErr := store.Down(context.WithoutCancel(ctx), labName)
		l.Close()
		err = errors.Join(err, downErr)
	}()
	w := &world{Lab: l, changed: make(chan struct{})}
	stop, err := w.follow()
	if err != nil {
		return err
	}
	defer stop()
	if err := w.await(ctx, func(counts map[string]int) bool { return counts["s1"] > 0 && counts["s2"] > 0 && counts["s3"] > 0 }); err != nil {
		return err
	}
	if err := w.warm(); err != nil {
		return err
	}
	return do(w)
}

// warm waits until no packet is lost: the first epoch is done when its joins are sent.
func (w *world) warm() error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		j, err := w.observe(func() error { time.Sleep(200 * time.Millisecond); return nil })
		if err != nil || j.lost() == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d packets come to no server 10 s after the first epoch", j.lost(), j.sent)
		}
	}
}

// follow listens to the bus, from inside the management network.
func (w *world) follow() (stop func(), err error) {
	w.watch = w.Command(context.Background(), "ctl", "manycast", "lab", "watch", "--service", w.Topology().Vars["service"])
	out, err := w.watch.StdoutPipe()
	if err == nil {
		err = w.watch.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("lab watch: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for dec := json.NewDecoder(out); ; {
			var n scenario.News
			if dec.Decode(&n) != nil {
				return
			}
			w.hear(n)
		}
	}()
	return func() {
		w.watch.Process.Signal(unix.SIGINT) //nolint:errcheck // it may have ended
		<-done
		w.watch.Wait() //nolint:errcheck // what it said is what counts
	}, nil
}

func (w *world) hear(n scenario.News) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.Moves != nil {
		w.moves = n.Moves
	}
	if a := n.Allocation; a != nil && (len(w.epochs) == 0 || w.epochs[len(w.epochs)-1].Epoch != a.Epoch) {
		w.epochs = append(w.epochs, allocation{*a, n.Written})
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// await waits until an allocation is as wanted and all agents are done with it.
func (w *world) await(ctx context.Context, want func(counts map[string]int) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		w.mu.Lock()
		changed, ok := w.changed, false
		if len(w.epochs) > 0 && len(w.moves) > 0 {
			a := w.epochs[len(w.epochs)-1]
			ok = w.moves[len(w.moves)-1].Epoch == a.Epoch.String() && want(a.Counts())
		}
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the allocation that was waited for did not come within 15 s (see %s): %w", w.Dir("logs"), ctx.Err())
		}
	}
}

// journey is a flow and where its packets came.
type journey struct {
	sent  uint64
	links map[string][]probe.Arrival // by server; s2 and s3 are on one link
}

// observe sends packets of all users to the VIP and captures them on both links of the servers while do works.
func (w *world) observe(do func() error) (j journey, err error) {
	vars := w.Topology().Vars
	group, vip := netip.MustParseAddr(vars["group"]), netip.MustParseAddr(vars["vip"])
	captures := map[string]*probe.Capture{}
	for _, server := range []string{"s1", "s2"} {
		ns, err := w.Namespace(server)
		if err != nil {
			return j, err
		}
		if captures[server], err = probe.Listen(ns, "eth0", group); err != nil {
			return j, err
		}
	}
	users, err := w.Namespace("users")
	if err != nil {
		return j, err
	}
	var addrs []netip.Addr
	for _, a := range w.Topology().Node("users").Addresses["eth0"] {
		addrs = append(addrs, a.Addr())
	}
	flow, err := probe.Send(users, addrs, netip.AddrPortFrom(vip, 80), packetGap)
	if err != nil {
		return j, err
	}
	err = do()
	var flowErr error
	j.sent, flowErr = flow.Stop()
	err = errors.Join(err, flowErr)
	time.Sleep(50 * time.Millisecond) // for what is on its way
	j.links = map[string][]probe.Arrival{}
	for server, c := range captures {
		arrivals, e := c.Stop()
		j.links[server], err = arrivals, errors.Join(err, e)
	}
	j.links["s3"] = j.links["s2"]
	return j, err
}

// lost counts the packets that came to no link.
func (j journey) lost() int {
	seen := make([]bool, j.sent)
	missing := len(seen)
	for _, arrivals := range j.links {
		for _, a := range arrivals {
			if a.Number < j.sent && !seen[a.Number] {
				seen[a.Number] = true
				missing--
			}
		}
	}
	return missing
}

// restart kills igmpd on both routers, leaves them without for a second, and starts it again.
func (w *world) restart(ctx context.Context) error {
	routers := []string{"r1", "r2"}
	time.Sleep(500 * time.Millisecond)
	for _, r := range routers {
		if err := w.Kill(r, "igmpd"); err != nil {
			return err
		}
	}
	time.Sleep(time.Second)
	for _, r := range routers {
		if err := w.Start(ctx, r, "igmpd"); err != nil {
			return err
		}
	}
	time.Sleep(time.Second)
	return nil
}

// move gives s1 more of the users and less of them in turns, and waits for each to be done.
func (w *world) move(ctx context.Context) error {
	for i := range moves {
		weight, least := "4", 0.6
		if i%2 == 1 {
			weight, least = "1", 0.3
		}
		time.Sleep(afterMove)
		argv := []string{"manycast", "server", "weight", w.Topology().Vars["service"] + "/s1", weight}
		if out, err := w.Command(ctx, "ctl", argv...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", argv, err, out)
		}
		err := w.await(ctx, func(counts map[string]int) bool {
			part := float64(counts["s1"]) / float64(counts["s1"]+counts["s2"]+counts["s3"])
			return part > least && part < least+0.1
		})
		if err != nil {
			return err
		}
	}
	time.Sleep(afterMove)
	return nil
}
