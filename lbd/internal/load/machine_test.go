package load

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// machine has files below a directory of its own.
func machine(t *testing.T, files map[string]string) *Machine {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return NewMachine(root)
}

const (
	stat    = "cpu  600 100 200 8000 500 30 70 500 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
	meminfo = "MemTotal:       1000000 kB\nMemFree:         1000 kB\nMemAvailable:   50000 kB\n"
	some    = "some avg10=25.50 avg60=1.00 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
)

func TestMachine(t *testing.T) {
	for name, tt := range map[string]struct {
		files       map[string]string
		busy, total float64
		memory      float64
		fails       bool
	}{
		"steal is spent, waiting for disks is not, guests are counted once": {
			map[string]string{"proc/stat": stat, "proc/pressure/memory": some}, 1500, 10000, 0.255, false},
		"no pressure information": {
			map[string]string{"proc/stat": stat, "proc/meminfo": meminfo}, 1500, 10000, 0.5, false},
		"a container's own pressure": {
			map[string]string{"proc/stat": stat, "proc/pressure/memory": some, "sys/fs/cgroup/memory.pressure": "some avg10=3.00 avg60=0"}, 1500, 10000, 0.03, false},
		"a container without a limit": {
			map[string]string{"proc/stat": stat, "proc/pressure/memory": some, "sys/fs/cgroup/cpu.max": "max 100000\n"}, 1500, 10000, 0.255, false},
		"a container of a CPU and a half": {map[string]string{
			"proc/stat": stat, "proc/pressure/memory": some,
			"sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/cpu.stat": "usage_usec 3000000\nuser_usec 1\n"}, 3e6, 1.5 * 4e6, 0.255, false},
		"pressure that is none": {
			map[string]string{"proc/stat": stat, "proc/pressure/memory": "some\n", "proc/meminfo": meminfo}, 1500, 10000, 0.5, false},
		"no figures":      {map[string]string{"proc/stat": "cpu  1 2 3\n", "proc/meminfo": meminfo}, 0, 0, 0, true},
		"no CPU":          {map[string]string{"proc/meminfo": meminfo}, 0, 0, 0, true},
		"no memory":       {map[string]string{"proc/stat": stat}, 0, 0, 0, true},
		"not a number":    {map[string]string{"proc/stat": "cpu  a b c d e f g h\n", "proc/meminfo": meminfo}, 0, 0, 0, true},
		"memory of 0 kB?": {map[string]string{"proc/stat": stat, "proc/meminfo": "MemTotal: 0 kB\nMemAvailable: 0 kB\n"}, 1500, 10000, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine(t, tt.files)
			r, err := m.Read(m.at.Add(4 * time.Second))
			if (err != nil) != tt.fails {
				t.Fatalf("error %v", err)
			}
			if !tt.fails && (r.Busy != tt.busy || r.Total != tt.total || math.Abs(r.Memory-tt.memory) > 1e-9) {
				t.Errorf("%+v, want %+v", r, tt)
			}
		})
	}
}

// TestThisMachine reads what this kernel has.
func TestThisMachine(t *testing.T) {
	began := time.Now()
	m := NewMachine("/")
	r, err := m.Read(time.Now())
	if err != nil || r.Total <= 0 && began.Before(time.Now()) || r.Busy < 0 || r.Memory < 0 || r.Memory > 1 {
		t.Errorf("%+v, error %v", r, err)
	}
}

// TestLimitThatChanges: each interval counts by the limit that it had.
func TestLimitThatChanges(t *testing.T) {
	m := machine(t, map[string]string{"proc/pressure/memory": some, "sys/fs/cgroup/cpu.max": "200000 100000\n", "sys/fs/cgroup/cpu.stat": "usage_usec 0\n"})
	at := m.at.Add(time.Minute)
	before, err := m.Read(at)
	if err != nil || before.Total != 120e6 {
		t.Fatalf("%+v, %v", before, err)
	}
	if err := os.WriteFile(filepath.Join(m.root, "sys/fs/cgroup/cpu.max"), []byte("50000 100000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := m.Read(at.Add(2 * time.Second))
	if err != nil || after.Total-before.Total != 1e6 {
		t.Errorf("%v us were there to spend in 2 s of half a CPU, %v", after.Total-before.Total, err)
	}
}
