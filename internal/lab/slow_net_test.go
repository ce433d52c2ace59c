package lab

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const busy = `
name: busy
nodes:
  - name: a
    processes:
      - {name: busy, command: [sh, -c, "while :; do :; done"], ready: none}
steps:
  - {start: [a/busy]}
`

// ticks is how long a process has run, in hundredths of a second.
func ticks(t *testing.T, pid int) (sum int) {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	for _, field := range f[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// A slow process runs for its part of the time at most, and no longer when it may again. A lab that goes down leaves no control group.
func TestNetSlow(t *testing.T) {
	s, l, err := start(t, busy)
	if err != nil {
		t.Fatal(err)
	}
	pid := l.Status().Processes[0].PID
	if err := l.Slow("a", 5*time.Millisecond, 100*time.Millisecond, "busy"); err != nil {
		t.Fatal(err)
	}
	before, began := ticks(t, pid), time.Now()
	time.Sleep(2 * time.Second)
	ran, most := ticks(t, pid)-before, int(time.Since(began).Seconds()*5)+3 // and what it had left, and clocks' ticks
	if ran == 0 || ran > most {
		t.Errorf("it ran for %d0 ms of 2 s, want up to %d0", ran, most)
	}
	if left, err := s.Leftovers(l.Name()); err != nil || !strings.Contains(strings.Join(left, " "), "control group") {
		t.Errorf("left while it is slow: %v, %v", left, err)
	}
	if err := l.Unslow("a"); err != nil {
		t.Fatal(err)
	}
	if left := leftGroups(l.Name()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := l.Slow("a", 5*time.Millisecond, 100*time.Millisecond, "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a process that does not run: %v", err)
	}
	if _, err := s.Down(t.Context(), l.Name()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, s, l.Name())
}
