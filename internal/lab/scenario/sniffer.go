package scenario

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/lab"
)

// sniffer is tcpdump on an interface of a node; what counts is how many packets its filter took.
type sniffer struct {
	where string
	file  string // has the packets
	cmd   *exec.Cmd
	out   tail
	done  chan struct{}
}

// startSniffer starts one that writes what it takes to file, each packet as soon as it is there where just a few may come.
func startSniffer(ctx context.Context, l *lab.Lab, node, ifname, filter, file string, few bool) (*sniffer, error) {
	s := &sniffer{where: node + ":" + ifname, file: file, done: make(chan struct{})}
	argv := []string{"tcpdump", "-i", ifname, "-n", "-s", "64", "-B", "4096", "-Z", "root", "-w", file}
	if few {
		argv = append(argv, "--immediate-mode")
	}
	s.cmd = l.Command(context.Background(), node, append(argv, filter)...)
	s.cmd.Stderr = &s.out
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("tcpdump on %s: %w: is it installed? tools/setup test", s.where, err)
	}
	go func() {
		s.cmd.Wait() //nolint:errcheck // its counters say whether it worked
		close(s.done)
	}()
	for !strings.Contains(s.out.String(), "listening on") {
		select {
		case <-s.done:
			return nil, fmt.Errorf("tcpdump on %s: %s", s.where, s.out.String())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), s.cmd.Process.Kill())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return s, nil
}

var (
	capturedRE = regexp.MustCompile(`(\d+) packets? captured`)
	droppedRE  = regexp.MustCompile(`(\d+) packets? dropped by kernel`)
)

// stop ends it and returns how many packets its filter took, seen or dropped.
func (s *sniffer) stop() (int, error) {
	if err := s.cmd.Process.Signal(unix.SIGINT); err != nil {
		return 0, fmt.Errorf("tcpdump on %s: %w: %s", s.where, err, s.out.String())
	}
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		return 0, errors.Join(fmt.Errorf("tcpdump on %s did not end", s.where), s.cmd.Process.Kill())
	}
	return packets(s.where, s.out.String())
}

// first are the first packets that it took, in words.
func (s *sniffer) first(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "tcpdump", "-n", "-e", "-r", s.file, "-c", "5").Output()
	if err != nil {
		return "", fmt.Errorf("tcpdump of what was seen on %s: %w", s.where, err)
	}
	return "; " + strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; "), nil
}

// packets are those that the filter took. Among those "received by filter" are also some that came before there was a filter: libpcap
// binds the socket first, and throws away what it got until then.
func packets(where, text string) (int, error) {
	captured, dropped := capturedRE.FindStringSubmatch(text), droppedRE.FindStringSubmatch(text)
	if captured == nil || dropped == nil {
		return 0, fmt.Errorf("tcpdump on %s gave no counts: %s", where, text)
	}
	a, errA := strconv.Atoi(captured[1])
	b, errB := strconv.Atoi(dropped[1])
	return a + b, errors.Join(errA, errB)
}
