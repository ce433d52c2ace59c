package mover

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What this program is as a process of its own, by its environment: the application of a server, or a user, of whom a benchmark wants to know how
// long they wait, and not what else goes on in its own process.
const (
	apartApplication = "MOVER_TEST_APPLICATION" // address, server, socket of its agent, "paced" or "bulk"
	apartUser        = "MOVER_TEST_USER"        // address
)

func TestMain(m *testing.M) {
	var err error
	if n, e := strconv.Atoi(os.Getenv(idleUsers)); e == nil {
		err = beIdle(n)
	} else if of := strings.Fields(os.Getenv(apartApplication)); len(of) == 4 {
		err = beApplication(of[0], of[1], of[2], of[3] == "bulk")
	} else if to := os.Getenv(apartUser); to != "" {
		err = beUser(to)
	} else {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func beApplication(at, name, agent string, bulk bool) error {
	address, err := netip.ParseAddrPort(at)
	if err != nil {
		return err
	}
	l, err := listenNumbers(address, name, agent)
	if err != nil {
		return err
	}
	acceptNumbers(l, name, manner{new(atomic.Bool), new(atomic.Bool), bulk})
	return nil
}

// beUser says at each line of its input how long it waited at most since the one before, how often another server has gone on, and how long it waited for
// the last one that did.
func beUser(to string) error {
	c, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		return err
	}
	n := startNumbers(c)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := n.failed.Load(); err != nil {
			return *err
		}
		fmt.Println(n.longest.Swap(0), n.switched.Load(), n.over.Load())
	}
	return nil
}

// serveApart has applications, as serve, that are processes of their own; traffic is paced or bulk.
func (r *rig) serveApart(traffic string) {
	r.t.Helper()
	for name, s := range r.servers {
		s.node.Start("env", fmt.Sprintf("%s=%v %s %s %s", apartApplication, r.front, name, s.path, traffic), os.Args[0])
	}
	r.awaitServed()
}

// farNumbers is a user that is a process of its own.
type farNumbers struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Scanner
}

func (r *rig) farNumbers() farNumbers {
	r.t.Helper()
	cmd := r.user.Command(r.t.Context(), "env", fmt.Sprintf("%s=%v", apartUser, r.front), os.Args[0])
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cmd.Wait() }) // its context is over
	return farNumbers{r.t, in, bufio.NewScanner(out)}
}

// waited is for how long a user has waited for numbers.
type waited struct {
	longest  time.Duration // since it was last asked
	switched int           // how often another server has gone on
	over     time.Duration // for that one's first number, the last time
}

func (n farNumbers) waits() (w waited) {
	n.t.Helper()
	if _, err := fmt.Fprintln(n.in); err != nil {
		n.t.Fatal(err)
	}
	if !n.out.Scan() {
		n.t.Fatal("the user has ended")
	}
	if _, err := fmt.Sscan(n.out.Text(), &w.longest, &w.switched, &w.over); err != nil {
		n.t.Fatalf("%q: %v", n.out.Text(), err)
	}
	return w
}
