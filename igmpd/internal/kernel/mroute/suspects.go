package mroute

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
)

// suspects names the processes that have a raw IGMP socket open, as " (pimd, process 123)". The kernel does not say which of
// them has a table; empty when none is found.
func suspects() string {
	inodes := rawIGMP()
	if len(inodes) == 0 {
		return ""
	}
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	seen := map[string]bool{}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		if seen[dir] {
			continue
		}
		seen[dir] = true
		name, _ := os.ReadFile(dir + "/comm")
		found = append(found, strings.TrimSpace(string(name))+", process "+filepath.Base(dir))
	}
	if len(found) == 0 {
		return ""
	}
	return " (" + strings.Join(found, "; ") + ")"
}

// rawIGMP returns the raw IGMP sockets of the network namespace, as /proc/PID/fd has them.
func rawIGMP() map[string]bool {
	f, err := os.Open("/proc/thread-self/net/raw")
	if err != nil {
		return nil
	}
	defer f.Close()
	inodes := map[string]bool{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], ":0002") {
			inodes["socket:["+fields[9]+"]"] = true
		}
	}
	return inodes
}
