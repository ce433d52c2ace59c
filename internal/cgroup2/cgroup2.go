// Package cgroup2 finds control groups of version 2.
package cgroup2

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Root is where they are mounted.
func Root() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	for mount := range strings.Lines(string(mounts)) {
		if f := strings.Fields(mount); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("cgroup2 is not mounted; `mount -t cgroup2 none /sys/fs/cgroup` does, or set the control group to a directory on one")
}

// Own is the directory of the group that this process is in.
func Own() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find this process' control group: %w", err)
	}
	for line := range strings.Lines(string(groups)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(root, path), nil
		}
	}
	return "", errors.New("this process is in no control group of version 2")
}
