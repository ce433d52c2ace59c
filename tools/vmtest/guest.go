package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// guestMain is the first process of a machine: it makes the place that the command expects, runs it, says how it ended, and
// stops the machine.
func guestMain(kind, path string) {
	fmt.Println(startedLine) // to the console
	g := guest{kind: kind}
	j, err := loadJob(path)
	if err == nil {
		err = g.start(j)
	}
	var e end
	if err == nil {
		e, err = g.runCommand(j)
	}
	if err != nil {
		e.Error = err.Error()
	}
	g.tell(e)
	g.stop()
}

type guest struct {
	kind    string
	channel *frames
	file    *os.File // of the channel
}

// start opens the channel and makes the place.
func (g *guest) start(j job) error {
	switch g.kind {
	case kindHost:
		g.open(os.NewFile(3, "channel"))
		unix.CloseOnExec(3)
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("mounts of one's own: %w", err)
		}
	case kindUML:
		f, err := openSerial("/dev/ttyS0")
		if err != nil {
			return err
		}
		g.open(f)
		if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
			return err
		}
		if err := loadModules(j.Lib, j.Early...); err != nil {
			return err
		}
		hostfs := func(at string) error { return mount("none", at, "hostfs", 0, "/") }
		if err := enterOverlay(hostfs, j); err != nil {
			return err
		}
	case kindQEMU:
		if err := g.startQEMU(j); err != nil {
			return err
		}
	}
	if err := mountKernel(); err != nil {
		return err
	}
	if len(j.Modules) > 0 {
		if err := loadModules(j.Lib, j.Modules...); err != nil {
			return err
		}
	}
	if g.kind != kindHost {
		if err := unix.Sethostname([]byte("vmtest")); err != nil {
			return err
		}
	}
	return loopbackUp()
}

// startQEMU begins in the initramfs.
func (g *guest) startQEMU(j job) error {
	for _, f := range j.Early {
		if err := loadModule(f); err != nil {
			return err
		}
	}
	if err := mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil {
		return err
	}
	f, err := openPort()
	if err != nil {
		return err
	}
	g.open(f)
	const options = "trans=virtio,version=9p2000.L,cache=loose,msize=512000"
	return enterOverlay(func(at string) error { return mount(hostTag, at, "9p", 0, options) }, j)
}

// openPort waits for the port that the kernel is about to find: its name begins with the number of a virtio device.
func openPort() (*os.File, error) {
	for range 500 {
		if ports, err := filepath.Glob("/dev/vport*p1"); err == nil && len(ports) > 0 {
			return os.OpenFile(ports[0], os.O_WRONLY, 0)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("the channel to the host is not there")
}

func (g *guest) open(f *os.File) { g.file, g.channel = f, &frames{w: f} }

// tell sends how it ended, after all that has been written has reached the host.
func (g *guest) tell(e end) {
	unix.Sync()
	if e.Error != "" {
		fmt.Println("vmtest:", e.Error)
	}
	if g.channel == nil {
		return // the console has it
	}
	data, err := json.Marshal(e)
	if err == nil {
		err = g.channel.send(kindEnd, data)
	}
	if err != nil {
		fmt.Println("vmtest: tell how it ended:", err)
	}
}

func (g *guest) stop() {
	if g.kind == kindHost {
		os.Exit(0) // the namespace ends with its first process
	}
	if g.kind == kindUML && g.file != nil {
		drain(g.file)
	}
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("vmtest: power off:", err)
	select {}
}

// runCommand runs the command to its end and ends all that it left. Orphans come to this process, and go.
func (g *guest) runCommand(j job) (e end, err error) {
	if err := os.Chdir(j.Dir); err != nil {
		return e, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return e, err
	}
	var copies sync.WaitGroup
	out, err := g.pipe(kindStdout, &copies)
	if err != nil {
		return e, err
	}
	errs, err := g.pipe(kindStderr, &copies)
	if err != nil {
		return e, err
	}
	p, err := os.StartProcess(j.Command[0], j.Command, &os.ProcAttr{Dir: j.Dir, Env: j.Env, Files: []*os.File{null, out, errs},
		Sys: &unix.SysProcAttr{Setsid: true}})
	out.Close()
	errs.Close()
	if err != nil {
		return e, err
	}
	e = reap(p.Pid)
	_ = unix.Kill(-1, unix.SIGKILL) // all but this one
	copies.Wait()
	return e, nil
}

// pipe returns a file for the command whose content goes to the host.
func (g *guest) pipe(k kind, copies *sync.WaitGroup) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	copies.Go(func() {
		if _, err := io.Copy(stream{g.channel, k}, r); err != nil {
			fmt.Println("vmtest: output:", err)
		}
	})
	return w, nil
}

// reap waits for children until the one that counts has ended.
func reap(pid int) (e end) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return end{Error: fmt.Sprintf("wait for the command: %v", err)}
		case got == pid && status.Signaled():
			return end{Signal: status.Signal()}
		case got == pid && status.Exited():
			return end{Status: status.ExitStatus()}
		}
	}
}

// loadModule loads one file. That it is loaded already is no error.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load %s: %w", strings.TrimSuffix(filepath.Base(path), ".ko"), err)
	}
	return nil
}

// openSerial opens a serial line that leaves bytes as they are.
func openSerial(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// drain waits until the line has sent everything.
func drain(f *os.File) {
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1); err != nil {
		fmt.Println("vmtest: drain the channel:", err)
	}
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
