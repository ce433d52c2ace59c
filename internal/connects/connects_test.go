package connects

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newRun makes a run whose control group and pins are but directories.
func newRun(t *testing.T, root, name string) *Run {
	t.Helper()
	r, err := New(root, name, Made{Group: filepath.Join(root, "group-"+name), Pins: filepath.Join(root, "pins-"+name)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.Made.Pins, 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}

func isThere(t *testing.T, paths ...string) (n int) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			n++
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return n
}

func all(r *Run) []string { return []string{r.Dir, r.Made.Group, r.Made.Pins} }

// What somebody has yet stays, whoever looks; what nobody has goes, once, whoever comes.
func TestSweep(t *testing.T) {
	root := t.TempDir()
	lives, dead := newRun(t, root, "1"), newRun(t, root, "2")
	if err := os.Mkdir(filepath.Join(root, Prefix+"3"), 0o700); err != nil { // killed before it has made anything
		t.Fatal(err)
	}
	other := filepath.Join(root, "client")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	dead.lock.Close()
	swept, err := Sweep(root)
	if err != nil || !slices.Equal(swept, []string{"connect-2", "connect-3"}) {
		t.Errorf("swept %v, %v", swept, err)
	}
	if isThere(t, all(dead)...) != 0 || isThere(t, all(lives)...) != 3 || isThere(t, other) != 1 {
		t.Errorf("of the dead one there is %d, of the other one %d", isThere(t, all(dead)...), isThere(t, all(lives)...))
	}
	lives.lock.Close()
	next := newRun(t, root, "4")
	if isThere(t, all(lives)...) != 0 {
		t.Error("the next run leaves what is over")
	}
	if err := next.Remove(); err != nil || isThere(t, all(next)...) != 0 {
		t.Errorf("removed: %v", err)
	}
	if swept, err := Sweep(filepath.Join(root, "nowhere")); err != nil || swept != nil {
		t.Errorf("%v, %v", swept, err)
	}
}

// dup is what a child inherits.
func dup(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "lock")
}

// A run is over when both who share it are.
func TestShare(t *testing.T) {
	root := t.TempDir()
	r := newRun(t, root, "1")
	if swept, err := Sweep(root); err != nil || swept != nil {
		t.Fatalf("%v, %v", swept, err)
	}
	child, err := Join(r.Dir, dup(t, r.Share()))
	if err != nil || child.Made != r.Made {
		t.Fatalf("%+v, %v", child, err)
	}
	r.lock.Close()
	if swept, err := Sweep(root); err != nil || swept != nil {
		t.Errorf("swept %v from who has it yet, %v", swept, err)
	}
	if err := child.Remove(); err != nil || isThere(t, all(r)...) != 0 {
		t.Errorf("removed: %v", err)
	}
}

// What cannot be removed keeps its directory, so that the next one tries again; what does not say what it made is told.
func TestWhatStays(t *testing.T) {
	root := t.TempDir()
	r := newRun(t, root, "1")
	inside := filepath.Join(r.Made.Group, "below")
	if err := os.Mkdir(inside, 0o700); err != nil { // as somebody's own group in the command's
		t.Fatal(err)
	}
	r.lock.Close()
	if swept, err := Sweep(root); err == nil || swept != nil || isThere(t, r.Dir) != 1 {
		t.Errorf("swept %v, %v", swept, err)
	}
	if err := os.Remove(inside); err != nil {
		t.Fatal(err)
	}
	if swept, err := Sweep(root); err != nil || len(swept) != 1 {
		t.Errorf("swept %v, %v", swept, err)
	}
	for _, text := range []string{"", "{", `{"group":"a","pins":"/b"}`} {
		dir := filepath.Join(root, Prefix+"9")
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, madeName), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := Sweep(root); err == nil || isThere(t, dir) != 1 {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Who may look at the directory cannot hold up who looks for runs that are over: only root has the lock.
func TestNobodyHoldsUp(t *testing.T) {
	root := t.TempDir()
	held, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	swept := make(chan error, 1)
	go func() {
		_, err := Sweep(root)
		swept <- err
	}()
	select {
	case err := <-swept:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("who has locked the directory holds up others")
	}
	info, err := os.Stat(filepath.Join(root, aloneName))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the lock: %v, %v", info, err)
	}
}
