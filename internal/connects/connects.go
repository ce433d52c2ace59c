// Package connects keeps what runs of `manycast connect` have made on this host: a directory each, locked for as long as the run or its lbd client
// lives, which says what that is. What nobody has locked is over, however it ended, and whoever comes next removes it.
package connects

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/bpfnet"
)

// Prefix is what names of runs begin with.
const Prefix = "connect-"

const (
	madeName  = "made"
	aloneName = "connects.lock"
)

// Made is what there is to be removed.
type Made struct {
	Group string `json:"group"` // directory of a control group
	Pins  string `json:"pins"`  // directory on a bpffs
}

// Run is what one has, for whom it holds the lock.
type Run struct {
	Dir  string
	Made Made
	lock *os.File
}

// New makes a run's directory below root, which is there, and its control group. What is over goes first.
func New(root, name string, made Made) (*Run, error) {
	alone, err := beAlone(root)
	if err != nil {
		return nil, err
	}
	defer alone.Close()
	_, swept := sweep(root)
	r := &Run{Dir: filepath.Join(root, Prefix+name), Made: made}
	if err := os.Mkdir(r.Dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("directory of the run: %w", err), swept)
	}
	if r.lock, err = lock(r.Dir); err != nil {
		return nil, errors.Join(err, os.Remove(r.Dir))
	}
	text, err := json.Marshal(made)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.Dir, madeName), text, 0o600)
	}
	if err == nil {
		err = os.Mkdir(made.Group, 0o755)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control group for the command (as root?): %w", err), r.Remove())
	}
	return r, nil
}

// Share is the lock, for a process that is to have the run, too, and calls Join.
func (r *Run) Share() *os.File { return r.lock }

// Join is the run of a process that was given its lock.
func Join(dir string, lock *os.File) (*Run, error) {
	made, err := read(dir)
	if err != nil {
		return nil, err
	}
	return &Run{dir, made, lock}, nil
}

// Remove removes what the run has, and lets go of the lock. It may be called more than once, and by all who have the run.
func (r *Run) Remove() error {
	return errors.Join(remove(r.Dir, r.Made), r.lock.Close())
}

// Sweep removes what runs below root have that are over, and returns their names. That there is no root is no error; runs of others that this
// user may not look at are left to them.
func Sweep(root string) ([]string, error) {
	alone, err := beAlone(root)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer alone.Close()
	return sweep(root)
}

func sweep(root string) (swept []string, _ error) {
	all, err := os.ReadDir(root)
	errs := []error{err}
	for _, d := range all {
		dir := filepath.Join(root, d.Name())
		if !d.IsDir() || !strings.HasPrefix(d.Name(), Prefix) {
			continue
		}
		held, err := lock(dir)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(removeDead(dir), held.Close())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("what %s has left: %w", d.Name(), err))
			continue
		}
		swept = append(swept, d.Name())
	}
	return swept, errors.Join(errs...)
}

// removeDead removes a run that is over. One that has not come to say what it makes has made nothing.
func removeDead(dir string) error {
	made, err := read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir)
	}
	if err != nil {
		return err
	}
	return remove(dir, made)
}

// remove keeps the directory until all that it tells of is gone. The programs go first: until then they do the command no harm.
func remove(dir string, made Made) error {
	err := errors.Join(bpfnet.RemovePins(made.Pins, "", nil), bpfnet.RemovePinDir(made.Pins), removeGroup(made.Group))
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func read(dir string) (made Made, err error) {
	text, err := os.ReadFile(filepath.Join(dir, madeName))
	if err == nil {
		err = json.Unmarshal(text, &made)
	}
	if err == nil && (!filepath.IsAbs(made.Group) || !filepath.IsAbs(made.Pins)) {
		err = errors.New("no paths")
	}
	if err != nil {
		return Made{}, fmt.Errorf("what a run has made: %s: %w", filepath.Join(dir, madeName), err)
	}
	return made, nil
}

// beAlone waits until nobody else looks through root, or makes a run there. The file is root's: others may look at root, and must not hold anybody up.
func beAlone(root string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(root, aloneName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return locked(f, unix.LOCK_EX)
}

// lock locks a directory unless somebody has it: until the file is closed, by all who have it, or their processes end.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return locked(f, unix.LOCK_EX|unix.LOCK_NB)
}

func locked(f *os.File, how int) (*os.File, error) {
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}
