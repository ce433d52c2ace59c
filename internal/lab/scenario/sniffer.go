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
	cmd   *exec.Cmd
	out   tail
	done  chan struct{}
}

func startSniffer(ctx context.Context, l *lab.Lab, node, ifname, filter string) (*sniffer, error) {
	s := &sniffer{where: node + ":" + ifname, done: make(chan struct{})}
	s.cmd = l.Command(context.Background(), node, "tcpdump", "-i", ifname, "-n", "-s", "64", "-B", "4096", "-Z", "root", "-w", "/dev/null", filter)
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
	receivedRE = regexp.MustCompile(`(\d+) packets? received by filter`)
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

func packets(where, text string) (int, error) {
	received, dropped := receivedRE.FindStringSubmatch(text), droppedRE.FindStringSubmatch(text)
	if received == nil || dropped == nil {
		return 0, fmt.Errorf("tcpdump on %s gave no counts: %s", where, text)
	}
	a, errA := strconv.Atoi(received[1])
	b, errB := strconv.Atoi(dropped[1])
	return a + b, errors.Join(errA, errB)
}
