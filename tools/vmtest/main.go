// Vmtest runs one command as root inside a kernel with MPLS and ends with its exit status:
//
//	vmtest [-kernel auto|host|uml|qemu] [-timeout d] [-modules a,b] [-write dir,dir] -- COMMAND ARGS...
//	go test -exec "$PWD/bin/vmtest --" ./tdpd/...
//
// The command sees the files of this machine, but what it writes is gone with the kernel, except below the directories of -write.
// Its network is loopback and what it makes. Whatever goes wrong with the kernel is a failure: exit status 125, and the end of the
// kernel's console on standard error. docs/testing.md says which kernel is good for what.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

// failed is the exit status of vmtest's own failures.
const failed = 125

func main() {
	switch {
	case len(os.Args) >= 4 && os.Args[1] == guestArg: // user-mode Linux appends arguments of its own
		guestMain(os.Args[2], os.Args[3]) // never returns
	case len(os.Args) >= 3 && os.Args[1] == keepArg:
		os.Exit(keep(os.Args[2:]))
	}
	runtime.LockOSThread() // what this thread starts is to die with it, see start
	os.Exit(hostMain(os.Args[1:], os.Stdout, os.Stderr))
}

// hostMain returns the exit status.
func hostMain(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "vmtest:", err)
		return failed
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { cancel(interrupted{(<-signals).(syscall.Signal)}) }()
	status, err := run(ctx, o, stdout, stderr)
	if err == nil {
		return status
	}
	fmt.Fprintln(stderr, "vmtest:", err)
	if i := (interrupted{}); errors.As(err, &i) {
		return 128 + int(i.signal)
	}
	return failed
}

// interrupted is the end by a signal to vmtest.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return "interrupted: " + i.signal.String() }

// run boots, runs and cleans up. The error says what was wrong with the machine; otherwise the status is the command's. Where nobody asked
// for a kind and user-mode Linux does not start, as on CPUs whose registers are more than it knows of (uml/xstate.c), it is QEMU.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (int, error) {
	status, err := runOnce(ctx, o, stdout, stderr)
	if o.kernel != kindAuto || !errors.Is(err, errNotStarted) {
		return status, err
	}
	fmt.Fprintln(stderr, "vmtest: user-mode Linux does not start on this machine (-kernel uml shows how); with QEMU it takes longer")
	o.kernel = kindQEMU
	return runOnce(ctx, o, stdout, stderr)
}

func runOnce(ctx context.Context, o options, stdout, stderr io.Writer) (status int, err error) {
	j, err := newJob(o)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := choose(o, dir, &j)
	if err != nil {
		return 0, err
	}
	if err := j.save(filepath.Join(dir, jobFile)); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after %v (-timeout)", o.timeout))
	defer cancel()
	s := session{stdout: stdout, stderr: stderr, machine: m, live: o.console}
	end, err := s.run(ctx)
	if err != nil {
		return 0, err
	}
	if end.Signal != 0 {
		fmt.Fprintf(stderr, "vmtest: %s: %v\n", j.Command[0], end.Signal)
		return 128 + int(end.Signal), nil
	}
	return end.Status, nil
}
