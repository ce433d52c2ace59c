package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// MachineReading is what a machine says of itself at a moment.
type MachineReading struct {
	Busy   float64 // CPU time spent, in any unit that Total has, too
	Total  float64 // CPU time that there was to spend
	Memory float64 // pressure, 0 to 1
}

// Machine reads the kernel's figures of the whole machine.
//
// CPU is of /proc/stat: all that is not idle or waiting for a disk. Time that the hypervisor gave to others (steal) counts as
// spent: the server cannot use it. A container sees the host's /proc/stat; where the cgroup at /sys/fs/cgroup has a limit
// (cpu.max), which the host's own never has, the container is the machine, and CPU is what it used of its limit. A limit of the
// application's unit alone is not seen: such an application says its load itself.
//
// Memory is the part of the last 10 s in which some task waited for memory (pressure stall information, "some avg10"), of the
// container or else the machine. A kernel without it counts from MemAvailable: nothing down to a tenth of the memory, 1 where
// none is left.
type Machine struct {
	root  string
	at    time.Time // of the last reading of a limit
	total float64   // CPU time that the limit has given until then, us
}

// NewMachine returns the one whose files are below root, which is "/". It is for one goroutine.
func NewMachine(root string) *Machine { return &Machine{root: root, at: time.Now()} }

// Read returns what the machine says now.
func (m *Machine) Read(now time.Time) (MachineReading, error) {
	r, err := m.cpu(now)
	if err != nil {
		return MachineReading{}, err
	}
	r.Memory, err = m.memory()
	return r, err
}

func (m *Machine) read(path string) ([]byte, error) { return os.ReadFile(filepath.Join(m.root, path)) }

func (m *Machine) cpu(now time.Time) (MachineReading, error) {
	if limit, ok := m.limit(); ok {
		usage, err := m.read("sys/fs/cgroup/cpu.stat")
		if err != nil {
			return MachineReading{}, err
		}
		used, err := field(usage, "usage_usec")
		m.total += limit * float64(now.Sub(m.at).Microseconds()) // a limit may change: each interval counts by its own
		m.at = now
		return MachineReading{Busy: used, Total: m.total}, err
	}
	stat, err := m.read("proc/stat")
	if err != nil {
		return MachineReading{}, err
	}
	return parseStat(stat)
}

// limit is how many CPUs the container has; false: it is none, or has all.
func (m *Machine) limit() (cpus float64, ok bool) {
	text, err := m.read("sys/fs/cgroup/cpu.max")
	var quota, period float64
	if _, scan := fmt.Sscan(string(text), &quota, &period); err != nil || scan != nil || quota <= 0 || period <= 0 {
		return 0, false
	}
	return quota / period, true
}

// parseStat reads the first line of proc_stat(5), in ticks: user nice system idle iowait irq softirq steal. What follows is in user
// and nice already.
func parseStat(stat []byte) (MachineReading, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) < 9 || words[0] != "cpu" {
		return MachineReading{}, fmt.Errorf("/proc/stat: %.80q: want cpu and eight figures", line)
	}
	var r MachineReading
	for i, word := range words[1:9] {
		ticks, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return MachineReading{}, fmt.Errorf("/proc/stat: %w", err)
		}
		r.Total += float64(ticks)
		if i != 3 && i != 4 { // idle, iowait
			r.Busy += float64(ticks)
		}
	}
	return r, nil
}

func (m *Machine) memory() (float64, error) {
	for _, path := range []string{"sys/fs/cgroup/memory.pressure", "proc/pressure/memory"} {
		text, err := m.read(path)
		if err != nil {
			continue
		}
		if p, err := parsePressure(text); err == nil {
			return p, nil
		}
	}
	text, err := m.read("proc/meminfo")
	if err != nil {
		return 0, err
	}
	total, err := field(text, "MemTotal:")
	available, err2 := field(text, "MemAvailable:")
	if err = errors.Join(err, err2); err != nil {
		return 0, err
	}
	const enough = 0.1
	return clamp(1-available/(enough*total), 0, 1), nil
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", Documentation/accounting/psi.rst.
func parsePressure(text []byte) (float64, error) {
	var percent float64
	if _, err := fmt.Sscanf(string(text), "some avg10=%f", &percent); err != nil {
		return 0, fmt.Errorf("pressure %.40q: %w", text, err)
	}
	return clamp(percent/100, 0, 1), nil
}

// field is the figure behind a name that begins a line.
func field(text []byte, name string) (float64, error) {
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			return strconv.ParseFloat(words[1], 64)
		}
	}
	return 0, fmt.Errorf("no %s in %.40q", name, text)
}

// clamp is low for what is no number.
func clamp(f, low, high float64) float64 {
	if !(f > low) {
		return low
	}
	return min(f, high)
}
