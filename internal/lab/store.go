package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
	"github.com/manycast/manycast/internal/wholefile"
)

// DefaultRoot is where labs keep their state: one directory each with configurations, logs, process ids and a bpffs.
const DefaultRoot = "/run/manycast/lab"

// Store knows the labs of this machine.
type Store struct {
	Root   string    // DefaultRoot
	Bin    string    // directory of the daemons' binaries
	Notice io.Writer // one line per thing that is done; may be nil
}

// Lab is a lab that is up, or what is left of one.
type Lab struct {
	store    *Store
	name     string
	topology *Topology
	spaces   map[string]*netns.Namespace // by node and switch

	mu    sync.Mutex
	state state
	reap  map[int]chan struct{} // closed when a child of ours has been waited for
}

// state is what a later command has to know, kept in lab.json.
type state struct {
	Topology  string            `json:"topology"` // the file's text
	Set       map[string]string `json:"set"`      // vars over it
	Processes []entry           `json:"processes"`
	Complete  bool              `json:"complete"`
}

// entry is a process that was started. Start is the kernel's start time: with it a process id names one process for ever.
type entry struct {
	Node  string `json:"node"`
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Name is the lab's name.
func (l *Lab) Name() string { return l.name }

// Topology is what the lab was made of.
func (l *Lab) Topology() *Topology { return l.topology }

// Dir is the directory of a node; an empty node means the lab's own.
func (l *Lab) Dir(node string) string { return filepath.Join(l.store.Root, l.name, node) }

// BPFFS is the lab's bpffs.
func (l *Lab) BPFFS() string { return l.Dir("bpf") }

// LogPath is where a process' output goes.
func (l *Lab) LogPath(node, process string) string {
	return filepath.Join(l.Dir("logs"), node+"-"+process+".log")
}

// namespace is the name of a node's namespace. Dots keep labs apart whose names begin alike.
func namespace(lab, node string) string { return namespacePrefix(lab) + node }

func namespacePrefix(lab string) string { return "mcl." + lab + "." }

// List returns the names of the labs that are up or have left something.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Open opens a lab that is up.
func (s *Store) Open(name string) (*Lab, error) {
	l := &Lab{store: s, name: name, spaces: map[string]*netns.Namespace{}, reap: map[int]chan struct{}{}}
	data, err := os.ReadFile(l.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %s is not up: manycast lab up brings one up", name)
	}
	if err == nil {
		err = json.Unmarshal(data, &l.state)
	}
	if err == nil {
		l.topology, err = ParseTopology([]byte(l.state.Topology))
	}
	if err == nil {
		err = l.topology.override(l.state.Set)
	}
	if err != nil {
		return nil, fmt.Errorf("state of lab %s: %w: manycast lab down %s removes what is there", name, err, name)
	}
	for _, node := range l.topology.namespaces() {
		if l.spaces[node], err = netns.Open(namespace(name, node)); err != nil {
			l.Close()
			return nil, fmt.Errorf("lab %s is damaged: %w: manycast lab down %s removes what is there", name, err, name)
		}
	}
	return l, nil
}

// Close lets go of a lab; it stays up.
func (l *Lab) Close() {
	for _, ns := range l.spaces {
		if ns != nil {
			ns.Close()
		}
	}
}

// Namespace is a node's or a switch's namespace.
func (l *Lab) Namespace(node string) (*netns.Namespace, error) {
	if ns := l.spaces[node]; ns != nil {
		return ns, nil
	}
	return nil, fmt.Errorf("lab %s has no node %q; it has %s", l.name, node, strings.Join(l.topology.namespaces(), ", "))
}

func (l *Lab) statePath() string { return l.Dir("lab.json") }

// save writes the state so that it is whole at every moment. The caller holds mu.
func (l *Lab) save() error {
	data, err := json.MarshalIndent(&l.state, "", "  ")
	if err != nil {
		return err
	}
	if err := wholefile.Write(l.statePath(), data); err != nil {
		return fmt.Errorf("state of lab %s: %w", l.name, err)
	}
	return nil
}

func (s *Store) notice(format string, args ...any) {
	if s.Notice != nil {
		fmt.Fprintf(s.Notice, format+"\n", args...)
	}
}

// mounted says whether a path is a mount point.
func mounted(path string) bool {
	var here, above unix.Stat_t
	return unix.Lstat(path, &here) == nil && unix.Lstat(filepath.Dir(path), &above) == nil && here.Dev != above.Dev
}
