package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
)

// earlyDir is where the modules are in the initramfs that load before there is a file system.
const earlyDir = "early"

// writeInitramfs makes what a kernel needs that finds no root by itself: this program as /init, the job, and the first modules,
// named so that their order is that of loading. The job is told what they are.
func writeInitramfs(path string, p paths, j *job) error {
	init, err := os.ReadFile(p.self)
	if err != nil {
		return err
	}
	if err := isStatic(init); err != nil {
		return fmt.Errorf("%s: %w", p.self, err)
	}
	m, err := readModules(os.DirFS(j.Lib), filepath.Base(j.Lib))
	if err != nil {
		return err
	}
	files, err := m.order(j.Early...)
	if err != nil {
		return err
	}
	var a archive
	for _, d := range []string{"dev", "proc", "tmp", earlyDir} {
		a.add(d, 0o40755, nil)
	}
	a.add("init", 0o100755, init)
	j.Early = nil
	for i, f := range files {
		data, err := os.ReadFile(filepath.Join(j.Lib, f))
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s/%02d-%s", earlyDir, i, filepath.Base(f))
		a.add(name, 0o100644, data)
		j.Early = append(j.Early, "/"+name)
	}
	if err := j.save(p.job); err != nil {
		return err
	}
	data, err := os.ReadFile(p.job)
	if err != nil {
		return err
	}
	a.add(jobFile, 0o100600, data)
	return os.WriteFile(path, a.end(), 0o600)
}

// isStatic refuses a program that needs libraries: there are none in the initramfs.
func isStatic(program []byte) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			return fmt.Errorf("is linked dynamically: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// archive is a cpio archive in the "newc" format, as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format).
type archive struct {
	buf   bytes.Buffer
	inode uint32
}

// add appends a file or directory, by its st_mode.
func (a *archive) add(name string, mode uint32, data []byte) {
	a.inode++
	const magic = "070701"
	a.buf.WriteString(magic)
	for _, field := range []uint32{a.inode, mode, 0, 0, 1, 0, uint32(len(data)), 0, 0, 0, 0, uint32(len(name) + 1), 0} {
		fmt.Fprintf(&a.buf, "%08X", field)
	}
	a.buf.WriteString(name + "\x00")
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// end returns the whole archive.
func (a *archive) end() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
