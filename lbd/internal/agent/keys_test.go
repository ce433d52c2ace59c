package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/store"
)

var testGroup = netip.MustParseAddr("239.80.80.80")

// signable reports whether the ring can sign for the group.
func signable(ring *joiner.Keyring) bool {
	_, err := ring.Sign(time.Now(), join.Join{Group: testGroup})
	return !errors.Is(err, joiner.ErrNoKey)
}

func startKeys(t *testing.T, bucket store.Bucket) (dir, member string, ring *joiner.Keyring, stop func()) {
	return startKeysLogging(t, bucket, io.Discard)
}

func startKeysLogging(t *testing.T, bucket store.Bucket, log io.Writer) (dir, member string, ring *joiner.Keyring, stop func()) {
	home := t.TempDir()
	dir, member, ring = filepath.Join(home, "groups"), filepath.Join(home, "member.key"), &joiner.Keyring{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewKeys(dir, member, bucket, ring, slog.New(slog.NewTextHandler(log, nil))).Run(ctx) }()
	return dir, member, ring, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestKeyOverTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := store.NewMemory(0)
		dir, memberFile, ring, stop := startKeys(t, bucket)
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
		for _, m := range []keyfile.Member{me, other} {
			value, err := keyfile.Envelope(m.Name, m.Public(), g)
			if err == nil {
				_, err = bucket.Put(t.Context(), keyfile.BusKey(m.Name, testGroup), value)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if signable(ring) {
			t.Fatal("signs without the member's own key")
		}
		if err := keyfile.WriteMember(memberFile, me, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if !signable(ring) {
			t.Error("the key that came over the bus does not sign")
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
		dir, _, ring, stop := startKeys(t, nil)
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
		if !signable(ring) {
			t.Error("the key in the directory does not sign")
		}
		stop()
	})
}

func TestUnusableMemberKeyIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		_, member, _, stop := startKeysLogging(t, store.NewMemory(0), &log)
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
