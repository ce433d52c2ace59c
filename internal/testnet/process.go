package testnet

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs in a node. It is killed when the test ends; what it wrote is logged when the test failed.
type Process struct {
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
	err  error
}

// outputDelay is how long the output of a program is waited for that has ended, and left others behind who could write to it.
const outputDelay = time.Second

// Start runs a program in the node.
func (n *Node) Start(argv ...string) *Process {
	n.t.Helper()
	p := &Process{cmd: n.Command(context.Background(), argv...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = outputDelay
	if err := p.cmd.Start(); err != nil {
		n.t.Fatalf("start %v: %v", argv, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	n.t.Cleanup(func() { p.end(n.t, argv) })
	return p
}

func (p *Process) end(t testing.TB, argv []string) {
	p.Signal(unix.SIGKILL)
	<-p.done
	if t.Failed() {
		t.Logf("output of %v:\n%s", argv, p.Output())
	}
}

// Signal sends a signal; a process that has ended is left alone.
func (p *Process) Signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

// Wait waits for the end and returns how it ended.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Ended says whether it has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// PID is the program's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is what it wrote to both its outputs so far.
func (p *Process) Output() string { return p.out.String() }

// Run runs a program in the node to its end and returns both its outputs.
func (n *Node) Run(argv ...string) (string, error) {
	out, err := n.Command(n.t.Context(), argv...).CombinedOutput()
	return string(out), err
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
