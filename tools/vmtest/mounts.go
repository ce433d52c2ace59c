package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// hostTag is the name of this machine's file system in QEMU.
const hostTag = "host"

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", fstype, target, err)
	}
	return nil
}

// enterOverlay makes the root that the command sees: the host's files, and a layer in memory that takes what is written.
func enterOverlay(mountHost func(at string) error, j job) error {
	const place = "/tmp" // there everywhere
	if err := mount("tmpfs", place, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	host, up, work, root := place+"/host", place+"/up", place+"/work", place+"/root"
	for _, d := range []string{host, up, work, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := mountHost(host); err != nil {
		return err
	}
	if err := mount("overlay", root, "overlay", 0, "lowerdir="+host+",upperdir="+up+",workdir="+work); err != nil {
		return err
	}
	for _, d := range j.Write {
		if err := bind(filepath.Join(host, d), filepath.Join(root, d)); err != nil {
			return err
		}
	}
	if err := bind(filepath.Join(host, j.Lib), filepath.Join(root, "lib/modules", filepath.Base(j.Lib))); err != nil {
		return err
	}
	if err := mount("devtmpfs", filepath.Join(root, "dev"), "devtmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(root, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	return os.Chdir("/")
}

func bind(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	return nil
}

// mountKernel mounts what the kernel shows and what a boot begins empty.
func mountKernel() error {
	for _, m := range []struct {
		fstype, target, data string
		must                 bool
	}{
		{"proc", "/proc", "", true},
		{"sysfs", "/sys", "", true},
		{"tmpfs", "/run", "mode=755", true},
		{"tmpfs", "/dev/shm", "mode=1777", true},
		{"devpts", "/dev/pts", "mode=620,ptmxmode=666", true},
		{"cgroup2", "/sys/fs/cgroup", "", false},
		{"bpf", "/sys/fs/bpf", "mode=700", false},
		{"tracefs", "/sys/kernel/tracing", "", false},
	} {
		err := os.MkdirAll(m.target, 0o755)
		if err == nil {
			err = mount(m.fstype, m.target, m.fstype, 0, m.data)
		}
		if m.must && err != nil {
			return err
		}
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}
