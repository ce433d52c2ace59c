package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cpuGroups are where control groups of CPU time are made: version 2, or version 1 beside it.
type cpuGroups struct {
	root string
	isV2 bool
}

func findCPUGroups() (cpuGroups, error) {
	if text, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control"); err == nil && strings.Contains(" "+strings.TrimSpace(string(text))+" ", " cpu ") {
		return cpuGroups{"/sys/fs/cgroup", true}, nil
	}
	if isFile("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") {
		return cpuGroups{"/sys/fs/cgroup/cpu", false}, nil
	}
	return cpuGroups{}, errors.New("no control groups of CPU time at /sys/fs/cgroup: neither version 2 with cpu in cgroup.subtree_control, nor version 1")
}

// Slow lets processes of a node run for quota in each period, all of their threads together, until Unslow.
func (l *Lab) Slow(node string, quota, period time.Duration, processes ...string) error {
	groups, err := findCPUGroups()
	if err != nil {
		return err
	}
	dir := filepath.Join(groups.root, namespace(l.name, node))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("slow %s: %w", node, err)
	}
	limits := [][2]string{{"cpu.cfs_period_us", micros(period)}, {"cpu.cfs_quota_us", micros(quota)}}
	if groups.isV2 {
		limits = [][2]string{{"cpu.max", micros(quota) + " " + micros(period)}}
	}
	for _, limit := range limits {
		if err := os.WriteFile(filepath.Join(dir, limit[0]), []byte(limit[1]), 0o600); err != nil {
			return fmt.Errorf("slow %s: %w", node, err)
		}
	}
	for _, p := range processes {
		if err := l.regroup(node, p, dir); err != nil {
			return err
		}
	}
	return nil
}

// Unslow lets the processes run as before.
func (l *Lab) Unslow(node string) error {
	groups, err := findCPUGroups()
	if err != nil {
		return err
	}
	for _, e := range l.entries() {
		if e.Node == node && e.alive() {
			if err := l.regroup(node, e.Name, groups.root); err != nil {
				return err
			}
		}
	}
	return removeGroup(filepath.Join(groups.root, namespace(l.name, node)))
}

func (l *Lab) regroup(node, process, dir string) error {
	for _, e := range l.entries() {
		if e.Node == node && e.Name == process && e.alive() {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(e.PID)), 0o600); err != nil {
				return fmt.Errorf("%s/%s into %s: %w", node, process, dir, err)
			}
			return nil
		}
	}
	return fmt.Errorf("%s/%s does not run", node, process)
}

// removeGroup removes a control group. The kernel takes a moment after the last process has left.
func removeGroup(dir string) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("control group: %w", err)
		}
	}
}

// leftGroups are the control groups that a lab has. They are named as its namespaces are.
func leftGroups(lab string) []string {
	groups, err := findCPUGroups()
	if err != nil {
		return nil
	}
	left, _ := filepath.Glob(filepath.Join(groups.root, namespacePrefix(lab)+"*"))
	return left
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
