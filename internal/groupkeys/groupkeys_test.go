package groupkeys_test

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/groupkeys"
	"github.com/manycast/manycast/internal/keyfile"
)

var testGroup = netip.MustParseAddr("239.80.80.80")

// ring is who uses the keys.
type ring struct {
	mu     sync.Mutex
	groups []keyfile.Group
}

func (r *ring) set(groups []keyfile.Group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups = groups
}

func (r *ring) has() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := keyfile.Pick(r.groups, testGroup, time.Now())
	return ok
}

// bucket is the bus' bucket of sealed keys.
type bucket []bus.Entry

func (b bucket) Watch(context.Context) <-chan bus.Entry {
	entries := make(chan bus.Entry, len(b))
	for _, e := range b {
		entries <- e
	}
	return entries
}

// start runs Keys on an empty directory.
func start(t *testing.T, sealed bucket, log io.Writer) (dir, member string, r *ring, stop func()) {
	home := t.TempDir()
	dir, member, r = filepath.Join(home, "groups"), filepath.Join(home, "member.key"), &ring{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- groupkeys.New(dir, member, sealed, r.set, slog.New(slog.NewTextHandler(log, nil))).Run(ctx)
	}()
	return dir, member, r, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestKeyOverTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		me, err := keyfile.NewMember("s1")
		if err != nil {
			t.Fatal(err)
		}
		other, err := keyfile.NewMember("s2")
		if err != nil {
			t.Fatal(err)
		}
		g, err := keyfile.NewGroup("web.cast.example.", testGroup)
		if err != nil {
			t.Fatal(err)
		}
		var sealed bucket
		for _, m := range []keyfile.Member{me, other} {
			value, err := keyfile.Envelope(m.Name, m.Public(), g)
			if err != nil {
				t.Fatal(err)
			}
			sealed = append(sealed, bus.Entry{Key: keyfile.BusKey(m.Name, testGroup), Value: value})
		}
		dir, memberFile, r, stop := start(t, sealed, io.Discard)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if r.has() {
			t.Fatal("a key without the member's own key")
		}
		if err := keyfile.WriteMember(memberFile, me, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if !r.has() {
			t.Error("the key that came over the bus is not there")
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("files %v, %v", files, err)
		}
		if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v: want mode 0600", info.Mode(), err)
		}
		stop()
	})
}

func TestKeyPutThereByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, _, r, stop := start(t, nil, io.Discard)
		time.Sleep(time.Second)
		synctest.Wait()
		g, err := keyfile.NewGroup("web.cast.example.", testGroup)
		if err == nil {
			err = keyfile.WriteGroup(filepath.Join(dir, g.FileName()), g, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !r.has() {
			t.Error("the key in the directory is not there")
		}
		stop()
	})
}

func TestUnusableMemberKeyIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		_, member, _, stop := start(t, bucket{}, &log)
		if err := os.WriteFile(member, []byte("not a key"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		stop()
		if n := strings.Count(log.String(), "cannot be used"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log.String())
		}
	})
}
