package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// guestArg is the first argument of vmtest as the first process of a machine; the second is the kind, the third the job.
const guestArg = "guest"

// keepArg is the first argument of vmtest as the first process of a process namespace, see keep.
const keepArg = "keep"

// Kinds of machines.
const (
	kindAuto = "auto" // host if it will do, else uml, else qemu
	kindHost = "host"
	kindUML  = "uml"
	kindQEMU = "qemu"
)

// choose returns the machine that the options name, and completes the job for it. What is made for it goes to dir.
func choose(o options, dir string, j *job) (machine, error) {
	self, err := os.Executable()
	if err != nil {
		return machine{}, err
	}
	p := paths{self: self, dir: dir, job: filepath.Join(dir, jobFile)}
	switch o.kernel {
	case kindAuto:
		if hostHasMPLS() && os.Geteuid() == 0 {
			return hostMachine(p, j)
		}
		return umlMachine(o, p, j)
	case kindHost:
		return hostMachine(p, j)
	case kindUML:
		return umlMachine(o, p, j)
	case kindQEMU:
		return qemuMachine(o, p, j)
	}
	return machine{}, fmt.Errorf("-kernel %s: auto, host, uml or qemu", o.kernel)
}

type paths struct{ self, dir, job string }

// hostHasMPLS reports whether the kernel that runs has MPLS, after asking for the module.
func hostHasMPLS() bool {
	if modprobe, err := exec.LookPath("modprobe"); err == nil {
		_ = exec.Command(modprobe, "-q", "mpls_router").Run() // what counts is whether it is there then
	}
	_, err := os.Stat("/proc/sys/net/mpls")
	return err == nil
}

// hostMachine is the running kernel, in namespaces of its own.
func hostMachine(p paths, j *job) (machine, error) {
	if os.Geteuid() != 0 {
		return machine{}, errors.New("-kernel host: namespaces need root")
	}
	if !hostHasMPLS() {
		return machine{}, errors.New("-kernel host: this kernel has no mpls_router (CONFIG_MPLS_ROUTING): use -kernel uml or qemu")
	}
	for _, m := range j.Modules {
		_ = exec.Command("modprobe", "-q", m).Run() // it may be built in; what needs it says so
	}
	j.Modules = nil
	cmd := exec.Command(p.self, guestArg, kindHost, p.job)
	cmd.SysProcAttr = dies(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET)
	return machine{kindHost, cmd}, nil
}

const umlModules = "/usr/lib/uml/modules"

// umlMachine is user-mode Linux: a process, its root file system this machine's.
func umlMachine(o options, p paths, j *job) (machine, error) {
	linux, err := exec.LookPath("linux.uml")
	if err != nil {
		return machine{}, errors.New("user-mode Linux is missing: tools/setup test installs it (package user-mode-linux)")
	}
	if j.Lib, err = newest(umlModules); err != nil {
		return machine{}, fmt.Errorf("modules of user-mode Linux: %w", err)
	}
	j.Early = []string{"overlay"}
	argv := []string{linux, fmt.Sprintf("mem=%dM", o.memory), "rootfstype=hostfs", "rw", "uml_dir=" + p.dir, "umid=uml",
		"con=null", "con0=null,fd:1", "ssl=null", "ssl0=null,fd:3", "oops=panic",
		"init=" + p.self, "--", guestArg, kindUML, p.job}
	var flags uintptr
	if os.Geteuid() == 0 { // its many processes end with it, whatever ends it
		argv, flags = append([]string{p.self, keepArg}, argv...), syscall.CLONE_NEWPID
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	if xstate := filepath.Join(cacheDir(), "xstate.so"); exists(xstate) { // see uml/xstate.c
		cmd.Env = append(os.Environ(), "LD_PRELOAD="+xstate)
	}
	cmd.SysProcAttr = dies(flags)
	return machine{kindUML, cmd}, nil
}

// cacheEnv names the variable with the directory of what tools/setup has made for machines: a kernel, unpacked, and help for user-mode Linux.
const (
	cacheEnv     = "MANYCAST_VM_CACHE"
	defaultCache = "/var/cache/manycast/vm"
)

func cacheDir() string {
	if dir := os.Getenv(cacheEnv); dir != "" {
		return dir
	}
	return defaultCache
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// qemuMachine is Debian's kernel, emulated.
func qemuMachine(o options, p paths, j *job) (machine, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return machine{}, errors.New("QEMU is missing: tools/setup test installs it (package qemu-system-x86)")
	}
	cache := cacheDir()
	if j.Lib, err = newest(filepath.Join(cache, "lib/modules")); err != nil {
		return machine{}, fmt.Errorf("no kernel in %s: tools/setup test unpacks one there: %w", cache, err)
	}
	if o.accel != "tcg" && o.accel != "kvm" {
		return machine{}, fmt.Errorf("-accel %s: tcg or kvm", o.accel)
	}
	j.Early = []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"}
	initrd := filepath.Join(p.dir, "initramfs")
	if err := writeInitramfs(initrd, p, j); err != nil {
		return machine{}, fmt.Errorf("initramfs: %w", err)
	}
	// Emulated, a copy by single bytes (ERMS) takes as many steps: without, a quarter of all time is saved. The emulator's time stamp counters agree,
	// which no flag of its CPU says: without them each look at a clock is one at a device.
	accel, cpu := "tcg,thread=multi", "max,-erms"
	if o.accel == "kvm" {
		accel, cpu = "kvm", "max"
	}
	cmd := exec.Command(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", accel, "-cpu", cpu, "-smp", "2", "-m", fmt.Sprint(o.memory),
		"-kernel", bootImage(filepath.Join(cache, "boot"), filepath.Base(j.Lib)), "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 oops=panic mitigations=off tsc=reliable -- "+guestArg+" "+kindQEMU+" /"+jobFile,
		"-serial", "stdio",
		"-virtfs", "local,path=/,mount_tag="+hostTag+",security_model=none,multidevs=remap",
		"-add-fd", "fd=3,set=1", "-chardev", "file,id=channel,path=/dev/fdset/1,append=on",
		"-device", "virtio-serial", "-device", "virtserialport,chardev=channel,nr=1")
	cmd.SysProcAttr = dies(0)
	return machine{kindQEMU, cmd}, nil
}

// bootImage is the kernel as it runs, where tools/setup has unpacked it: to unpack itself takes an emulated one longer than all else of its boot.
func bootImage(dir, version string) string {
	if image := filepath.Join(dir, "vmlinux-"+version); exists(image) {
		return image
	}
	return filepath.Join(dir, "vmlinuz-"+version)
}

// dies puts a process in a group of its own and has it killed when this one ends.
func dies(flags uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: flags}
}

// keep is the first process of a process namespace: it runs a program that must not be the first, because the first one cannot
// abort, and all end with it.
func keep(argv []string) int {
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, os.NewFile(3, "channel")}})
	if err != nil {
		fmt.Println("vmtest:", err)
		return failed
	}
	return reap(p.Pid).Status
}

// kill ends a machine and what it started. That it is gone already is no error.
func kill(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

// newest returns the directory of the highest kernel version below dir.
func newest(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() })
	if len(entries) == 0 {
		return "", &fs.PathError{Op: "find a kernel", Path: dir, Err: fs.ErrNotExist}
	}
	last := slices.MaxFunc(entries, func(a, b os.DirEntry) int { return compareVersions(a.Name(), b.Name()) })
	return filepath.Join(dir, last.Name()), nil
}

// compareVersions orders by numbers where there are numbers: 6.1.9 before 6.1.10.
func compareVersions(a, b string) int {
	digit := func(r rune) bool { return r >= '0' && r <= '9' }
	number := func(s string) (n int, rest string) {
		for i, r := range s {
			if !digit(r) {
				return n, s[i:]
			}
			n = n*10 + int(r-'0')
		}
		return n, ""
	}
	for a != "" && b != "" {
		if digit(rune(a[0])) && digit(rune(b[0])) {
			var x, y int
			if x, a = number(a); true {
				y, b = number(b)
			}
			if x != y {
				return x - y
			}
			continue
		}
		if a[0] != b[0] {
			return strings.Compare(a, b)
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}
