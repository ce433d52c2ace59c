package mover

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// idleUsers has this process open so many connections, say so, and at the end of its input say how many are well: a process of its own, for one
// may not have descriptors for both ends.
const idleUsers = "MOVER_TEST_IDLE_USERS"

func beIdle(n int) error {
	var all []net.Conn
	for range n {
		c, err := net.DialTimeout("tcp", front.String(), 10*time.Second)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	fmt.Println("connected")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	well := 0
	for _, c := range all {
		_ = c.SetReadDeadline(time.Now().Add(time.Microsecond))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			well++
		}
	}
	fmt.Println(well)
	return nil
}

// BenchmarkNetBatch moves a portion's idle connections in one batch.
func BenchmarkNetBatch(b *testing.B) {
	const connections = 10000
	r := newRig(b, nil)
	for _, s := range r.servers {
		s.idle.Store(true)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), idleUsers+"="+strconv.Itoa(connections))
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, r.user.Do(cmd.Start)); err != nil {
		b.Fatal(err)
	}
	said := bufio.NewScanner(out)
	if !said.Scan() || said.Text() != "connected" {
		b.Fatal("the users are not connected")
	}
	var took time.Duration
	moved := 0
	for i := 0; b.Loop(); i++ {
		from := r.servers[[]string{"s1", "s2"}[i%2]]
		given := from.Counters().Given
		began := time.Now()
		r.commit([]string{"s2", "s1"}[i%2])
		testnet.Eventually(b, 2*time.Minute, func() bool { return from.Counters().Given == given+connections }, "all are given")
		took += time.Since(began)
		moved += connections
	}
	_ = in.Close() // now they say how they are
	if !said.Scan() || strings.TrimSpace(said.Text()) != strconv.Itoa(connections) {
		b.Errorf("of %d connections %s are well", connections, said.Text())
	}
	if err := cmd.Wait(); err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64(moved)/took.Seconds(), "connections/s")
	b.ReportMetric(r.kernelRate(), "connections/s-kernel")
	b.ReportMetric(0, "ns/op")
}

// kernelRate is how many connections a second the kernel alone freezes and restores, one after the other: what there is of a transfer without
// links, applications and gates.
func (r *rig) kernelRate() (rate float64) {
	const times = 2000
	s := r.servers["s1"]
	err := s.node.Do(func() error {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(rigAddress("s1")), Port: 9})
		if err != nil {
			return err
		}
		defer l.Close()
		go func() {
			_ = r.user.Do(func() error {
				c, err := net.Dial("tcp", rigAddress("s1")+":9")
				if err == nil {
					r.t.Cleanup(func() { _ = c.Close() })
				}
				return err
			})
		}()
		c, err := l.AcceptTCP()
		if err != nil {
			return err
		}
		f, err := c.File()
		if err != nil {
			return err
		}
		fd, err := unix.Dup(int(f.Fd()))
		if err = errors.Join(err, f.Close(), c.Close()); err != nil {
			return err
		}
		local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
		began := time.Now()
		for range times {
			frozen, state, err := Kernel{}.Freeze(fd)
			if err != nil {
				return err
			}
			if err := frozen.Close(); err != nil {
				return err
			}
			restored, err := Kernel{}.Restore(local, remote, state)
			if err != nil {
				return err
			}
			if err := restored.Thaw(); err != nil {
				return err
			}
			fd = restored.FD()
		}
		rate = times / time.Since(began).Seconds()
		return Kernel{}.Drop(fd)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return rate
}
