package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	kernel  string
	accel   string
	timeout time.Duration
	modules []string
	write   []string
	memory  int // MiB
	console bool
	command []string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "usage: vmtest [flags] -- COMMAND ARGS...\nruns the command as root inside a kernel with MPLS")
		f.PrintDefaults()
	}
	f.StringVar(&o.kernel, "kernel", kindAuto, "auto: host if this kernel has MPLS, else uml, where it does not start qemu; host: this kernel, in namespaces; uml: user-mode Linux; qemu: Debian's kernel, emulated")
	f.StringVar(&o.accel, "accel", "tcg", "of qemu: tcg (emulation, works everywhere) or kvm")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "after which the run is ended and counts as failed")
	modules := f.String("modules", "", "kernel modules to load besides those for MPLS, separated by commas")
	write := f.String("write", "", "directories, separated by commas, whose changes are kept")
	f.IntVar(&o.memory, "memory", 2048, "of the machine, in MiB")
	f.BoolVar(&o.console, "console", false, "show the kernel's console on standard error as it comes")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.modules, o.command = list(*modules), f.Args()
	for _, d := range list(*write) {
		abs, err := filepath.Abs(d)
		if err != nil {
			return o, err
		}
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return o, fmt.Errorf("-write %s: no such directory", d)
		}
		o.write = append(o.write, abs)
	}
	switch {
	case len(o.command) == 0:
		return o, errors.New("which command? vmtest [flags] -- COMMAND ARGS")
	case o.timeout <= 0:
		return o, fmt.Errorf("-timeout %v: has to be more than nothing", o.timeout)
	case o.memory < 256:
		return o, fmt.Errorf("-memory %d: at least 256", o.memory)
	}
	return o, nil
}

// list splits at commas; empty items do not count.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}
