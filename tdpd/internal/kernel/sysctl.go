package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/manycast/manycast/internal/wholefile"
)

// mplsDir is where the settings of the calling thread's network namespace are.
const mplsDir = "/proc/sys/net/mpls"

// former is what the settings were before us.
type former struct {
	PlatformLabels *uint32  `json:"platform_labels,omitempty"`
	Raised         uint32   `json:"raised,omitempty"` // what we made of it
	Inputs         []string `json:"inputs,omitempty"` // interfaces whose input we switched on
}

// sysctls are the settings that labelled packets need.
type sysctls struct {
	dir    string // mplsDir
	file   string // keeps former while this process may be killed; empty: nothing does
	former former
}

// HasMPLS says whether the kernel of this network namespace has MPLS now: it is built in, or its module is loaded.
func HasMPLS() bool {
	_, err := os.Stat(mplsDir)
	return err == nil
}

func openSysctls(dir, file string) (*sysctls, error) {
	s := &sysctls{dir: dir, file: file}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("this kernel has no MPLS (%w): load mpls_router and mpls_iptunnel (CONFIG_MPLS_ROUTING, CONFIG_MPLS_IPTUNNEL), or set forwarding.fast_path", err)
	}
	if file == "" {
		return s, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s.former)
	}
	if err != nil {
		return nil, fmt.Errorf("former settings in %s: %w (remove the file, and net.mpls.platform_labels stays as it is at the end)", file, err)
	}
	return s, nil
}

// ensure has the platform's table hold the labels below platform, and the interfaces take labelled packets. room is how many
// labels the table holds, whatever failed.
func (s *sysctls) ensure(platform uint32, interfaces []string) (room uint32, err error) {
	room, err = s.raise(platform)
	errs := []error{err}
	for _, name := range interfaces {
		errs = append(errs, s.open(name))
	}
	for _, name := range slices.Clone(s.former.Inputs) {
		if !slices.Contains(interfaces, name) {
			errs = append(errs, s.shut(name))
		}
	}
	return room, errors.Join(errs...)
}

func (s *sysctls) raise(platform uint32) (room uint32, err error) {
	room, err = s.read("platform_labels")
	if err != nil || room >= platform {
		return room, err
	}
	if s.former.PlatformLabels == nil {
		before := room
		s.former.PlatformLabels = &before
	}
	s.former.Raised = platform
	if err := s.save(); err != nil {
		return room, err
	}
	if err := s.write("platform_labels", platform); err != nil {
		return room, err
	}
	return platform, nil
}

func input(name string) string { return filepath.Join("conf", name, "input") }

func (s *sysctls) open(name string) error {
	if name == "" || strings.ContainsRune(name, '/') || strings.HasPrefix(name, ".") {
		return fmt.Errorf("interface %q: no such name", name)
	}
	on, err := s.read(input(name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("interface %s: does not exist, or is of a type that the kernel takes no labelled packets from: %w", name, err)
	}
	if err != nil || on != 0 {
		return err
	}
	if !slices.Contains(s.former.Inputs, name) {
		s.former.Inputs = append(s.former.Inputs, name)
		if err := s.save(); err != nil {
			return err
		}
	}
	return s.write(input(name), 1)
}

// shut puts an input back that we have opened. One that is gone needs none.
func (s *sysctls) shut(name string) error {
	if err := s.write(input(name), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.former.Inputs = slices.DeleteFunc(s.former.Inputs, func(n string) bool { return n == name })
	return s.save()
}

// restore puts the settings back; others' labels below used keep their place.
func (s *sysctls) restore(used uint32) error {
	var errs []error
	for _, name := range slices.Clone(s.former.Inputs) {
		errs = append(errs, s.shut(name))
	}
	if before := s.former.PlatformLabels; before != nil {
		now, err := s.read("platform_labels")
		if err == nil && now == s.former.Raised {
			err = s.write("platform_labels", max(*before, used))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.former = former{}
	return s.save()
}

// save writes former, whole or not at all.
func (s *sysctls) save() error {
	if s.file == "" {
		return nil
	}
	if s.former.PlatformLabels == nil && len(s.former.Inputs) == 0 {
		if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(s.former)
	if err == nil {
		err = wholefile.Write(s.file, data)
	}
	if err != nil {
		return fmt.Errorf("keep former settings: %w", err)
	}
	return nil
}

// key is what sysctl(8) calls a setting. A dot of an interface's name is a slash there.
func key(setting string) string {
	return "net.mpls." + strings.NewReplacer("/", ".", ".", "/").Replace(setting)
}

func (s *sysctls) read(setting string) (uint32, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, setting))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", key(setting), err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", key(setting), err)
	}
	return uint32(n), nil
}

func (s *sysctls) write(setting string, value uint32) error {
	f, err := os.OpenFile(filepath.Join(s.dir, setting), os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(strconv.FormatUint(uint64(value), 10))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("%s cannot be set: %w (needs CAP_NET_ADMIN and a writable /proc/sys; or set it beforehand: sysctl -w %s=%d)", key(setting), err, key(setting), value)
	}
	return nil
}
