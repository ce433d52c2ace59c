// Package groupkeys brings group private keys to who uses them: from a directory, and sealed over the bus.
package groupkeys

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/keyfile"
)

// Watcher is what Keys needs of the bus' bucket of sealed keys.
type Watcher interface {
	Watch(ctx context.Context) <-chan bus.Entry
}

// Keys hands on the group keys in a directory: those put there by hand, and those that come sealed to this member over the bus; a
// daemon's task.
type Keys struct {
	dir    string
	member string  // file of this member's own key pair
	bucket Watcher // nil without a bus
	set    func([]keyfile.Group)
	log    *slog.Logger

	ready   chan struct{}
	turn    chan struct{}
	own     *keyfile.Member
	sealed  map[string][]byte // not opened yet
	told    map[string]string // the last error of the member's key and of the groups', told once
	inForce []uint32          // IDs of the keys handed on
}

// Limits of Keys.
const (
	keysEvery = time.Second // how often the directory is looked at
	sealedMax = 4096        // keys that wait for the member's own
)

// New returns Keys that have yet to run. set gets all keys that are valid, of each group the one in force first, whenever they are others
// than before. bucket may be nil.
func New(dir, member string, bucket Watcher, set func([]keyfile.Group), log *slog.Logger) *Keys {
	return &Keys{
		dir: dir, member: member, bucket: bucket, set: set, log: log,
		ready: make(chan struct{}), turn: make(chan struct{}), sealed: map[string][]byte{}, told: map[string]string{},
	}
}

// String names the task.
func (k *Keys) String() string { return "keys" }

// Ready is closed when the directory was read once: what is missing in the ring then is missing indeed.
func (k *Keys) Ready() <-chan struct{} { return k.ready }

// Turns is the loop's.
func (k *Keys) Turns() []chan<- struct{} { return []chan<- struct{}{k.turn} }

// Run works until ctx is done.
func (k *Keys) Run(ctx context.Context) error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	var entries <-chan bus.Entry
	if k.bucket != nil {
		entries = k.bucket.Watch(ctx)
	}
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	k.look()
	close(k.ready)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-entries:
			if !ok {
				entries = nil
				continue
			}
			if !e.Synced && !e.Deleted && len(k.sealed) < sealedMax {
				k.sealed[e.Key] = e.Value
			}
			if k.receive() {
				k.load()
			}
		case <-tick.C:
			k.look()
		case <-k.turn:
		}
	}
}

func (k *Keys) look() {
	k.receive()
	k.load()
}

// receive opens what came over the bus, once this member's own key is there; it reports whether a group key is new.
func (k *Keys) receive() bool {
	if k.own == nil && k.bucket != nil {
		m, err := keyfile.ReadMember(k.member)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				k.tell("member", err)
			}
			return false
		}
		k.own = &m
	}
	isAny := false
	for key, value := range k.sealed {
		delete(k.sealed, key)
		if !strings.HasPrefix(key, keyfile.MemberPrefix(k.own.Name)) {
			continue
		}
		g, isNew, err := k.own.Receive(k.dir, value)
		switch {
		case err != nil:
			k.log.Warn("group key over the bus", "key", key, "err", err)
		case isNew:
			k.log.Info("received a group's key", "group", g.Address, "name", g.Name)
			isAny = true
		}
	}
	return isAny
}

// load hands on the directory's keys, where they have changed.
func (k *Keys) load() {
	groups, err := keyfile.ReadGroups(k.dir)
	k.tell("groups", err)
	now := time.Now()
	groups = slices.DeleteFunc(groups, func(g keyfile.Group) bool { return g.NotBefore.After(now) })
	slices.SortStableFunc(groups, func(a, b keyfile.Group) int {
		return cmp.Or(b.NotBefore.Compare(a.NotBefore), cmp.Compare(a.Public().ID, b.Public().ID))
	})
	ids := make([]uint32, len(groups))
	for i, g := range groups {
		ids[i] = g.Public().ID
	}
	if slices.Equal(ids, k.inForce) {
		return
	}
	k.inForce = ids
	k.set(groups)
	k.log.Info("group keys", "count", len(groups))
}

// tell logs an error that stays only once.
func (k *Keys) tell(whose string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != k.told[whose] {
		k.log.Warn("keys that cannot be used", "err", err)
	}
	k.told[whose] = text
}
