package main

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// modules are the files of a kernel's loadable modules, as depmod(8) lists them.
type modules struct {
	version string
	files   map[string]string   // name -> file
	needs   map[string][]string // name -> names, the nearest first
	builtin map[string]bool
}

// readModules reads a directory like /lib/modules/VERSION.
func readModules(dir fs.FS, version string) (modules, error) {
	m := modules{version, map[string]string{}, map[string][]string{}, map[string]bool{}}
	err := eachLine(dir, "modules.dep", func(line string) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return
		}
		name := moduleName(file)
		m.files[name] = file
		for _, f := range strings.Fields(needs) {
			m.needs[name] = append(m.needs[name], moduleName(f))
		}
	})
	if err != nil {
		return m, fmt.Errorf("modules of kernel %s: %w", version, err)
	}
	return m, eachLine(dir, "modules.builtin", func(line string) { m.builtin[moduleName(line)] = true })
}

func eachLine(dir fs.FS, name string, do func(line string)) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		do(s.Text())
	}
	return s.Err()
}

// moduleName returns the name that the kernel gives the module of a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// order returns the files to load for the modules, what they need first. What is built in needs no file.
func (m modules) order(names ...string) (files []string, err error) {
	add := func(name string) {
		if f := m.files[name]; f != "" && !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	for _, name := range names {
		name = strings.ReplaceAll(name, "-", "_")
		if m.builtin[name] {
			continue
		}
		if m.files[name] == "" {
			return nil, fmt.Errorf("kernel %s has no module %s", m.version, name)
		}
		for _, need := range slices.Backward(m.needs[name]) {
			add(need)
		}
		add(name)
	}
	return files, nil
}

// loadModules loads the modules out of a kernel's directory.
func loadModules(dir string, names ...string) error {
	m, err := readModules(os.DirFS(dir), filepath.Base(dir))
	if err != nil {
		return err
	}
	files, err := m.order(names...)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := loadModule(filepath.Join(dir, f)); err != nil {
			return err
		}
	}
	return nil
}
