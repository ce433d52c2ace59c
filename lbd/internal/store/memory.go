package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/bus"
)

// Memory is a client's Bucket within one process, for tests. Like the bus it may be away: operations fail then, and watches send
// all again when it is back.
type Memory struct {
	*memory
	away    bool
	session int // counts returns of the bus
}

// memory is what all clients share.
type memory struct {
	ttl time.Duration

	mu       sync.Mutex
	revision uint64
	entries  map[string]entry
	changed  chan struct{} // closed and replaced at every change
}

type entry struct {
	bus.Entry
	written time.Time
}

// NewMemory returns an empty bucket whose entries vanish ttl after their last write; 0: never.
func NewMemory(ttl time.Duration) *Memory {
	return &Memory{memory: &memory{ttl: ttl, entries: map[string]entry{}, changed: make(chan struct{})}}
}

// Client returns the same bucket for another client, from which the bus may be away while it is not from this one.
func (m *Memory) Client() *Memory { return &Memory{memory: m.memory} }

// NewMemories returns all buckets as the bus makes them.
func NewMemories() Buckets {
	return Buckets{
		Services: NewMemory(0), Servers: NewMemory(time.Hour), Operator: NewMemory(0), Allocations: NewMemory(0),
		Leases: NewMemory(2 * time.Second), Moves: NewMemory(0), Keys: NewMemory(0), Pins: NewMemory(time.Minute),
	}
}

// SetAway makes the bus away from this client, or back.
func (m *Memory) SetAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away && !away {
		m.session++
	}
	m.away = away
	m.notify()
}

func (m *memory) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// begin locks and checks that the bus is there and the entry of key has not outlived its time.
func (m *Memory) begin(what, key string) error {
	m.mu.Lock()
	if m.away {
		return fmt.Errorf("%s %s: %w", what, key, bus.ErrAway)
	}
	if e, ok := m.entries[key]; ok && m.ttl > 0 && time.Since(e.written) >= m.ttl {
		delete(m.entries, key)
	}
	return nil
}

func (m *memory) write(key string, value []byte) uint64 {
	m.revision++
	m.entries[key] = entry{bus.Entry{Key: key, Value: bytes.Clone(value), Revision: m.revision}, time.Now()}
	m.notify()
	return m.revision
}

// Get implements Bucket.
func (m *Memory) Get(_ context.Context, key string) (bus.Entry, error) {
	defer m.mu.Unlock()
	if err := m.begin("get", key); err != nil {
		return bus.Entry{}, err
	}
	e, ok := m.entries[key]
	if !ok {
		return bus.Entry{}, fmt.Errorf("get %s: %w", key, bus.ErrNotFound)
	}
	return e.Entry, nil
}

// Put implements Bucket.
func (m *Memory) Put(_ context.Context, key string, value []byte) (uint64, error) {
	defer m.mu.Unlock()
	if err := m.begin("put", key); err != nil {
		return 0, err
	}
	return m.write(key, value), nil
}

// Create implements Bucket.
func (m *Memory) Create(_ context.Context, key string, value []byte) (uint64, error) {
	defer m.mu.Unlock()
	if err := m.begin("create", key); err != nil {
		return 0, err
	}
	if _, ok := m.entries[key]; ok {
		return 0, fmt.Errorf("create %s: %w", key, bus.ErrExists)
	}
	return m.write(key, value), nil
}

// Update implements Bucket.
func (m *Memory) Update(_ context.Context, key string, value []byte, last uint64) (uint64, error) {
	defer m.mu.Unlock()
	if err := m.begin("update", key); err != nil {
		return 0, err
	}
	if m.entries[key].Revision != last {
		return 0, fmt.Errorf("update %s: %w", key, bus.ErrConflict)
	}
	return m.write(key, value), nil
}

// Delete implements Bucket.
func (m *Memory) Delete(_ context.Context, key string) error {
	defer m.mu.Unlock()
	if err := m.begin("delete", key); err != nil {
		return err
	}
	m.revision++
	delete(m.entries, key)
	m.notify()
	return nil
}

// DeleteAt implements Bucket.
func (m *Memory) DeleteAt(ctx context.Context, key string, last uint64) error {
	e, err := m.Get(ctx, key)
	if err == nil && e.Revision != last {
		return fmt.Errorf("delete %s: %w", key, bus.ErrConflict)
	}
	return m.Delete(ctx, key)
}

// List implements Bucket.
func (m *Memory) List(context.Context) ([]bus.Entry, error) {
	defer m.mu.Unlock()
	if err := m.begin("list", ""); err != nil {
		return nil, err
	}
	return m.sorted(), nil
}

func (m *memory) sorted() []bus.Entry {
	var all []bus.Entry
	for _, e := range m.entries {
		all = append(all, e.Entry)
	}
	slices.SortFunc(all, func(a, b bus.Entry) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// Watch implements Bucket. Changes of one key that follow each other fast may be sent as one.
func (m *Memory) Watch(ctx context.Context) <-chan bus.Entry {
	out := make(chan bus.Entry)
	go func() {
		defer close(out)
		known, session := map[string]uint64{}, -1
		for {
			news, changed := m.news(known, &session)
			for _, e := range news {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// news returns what a watcher that knows known has to hear, and what is closed at the next change.
func (m *Memory) news(known map[string]uint64, session *int) ([]bus.Entry, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, m.changed
	}
	again := *session != m.session
	*session = m.session
	var news []bus.Entry
	for _, e := range m.sorted() {
		if again || known[e.Key] != e.Revision {
			known[e.Key] = e.Revision
			news = append(news, e)
		}
	}
	for key := range known {
		if _, ok := m.entries[key]; !ok {
			delete(known, key)
			news = append(news, bus.Entry{Key: key, Deleted: true, Revision: m.revision})
		}
	}
	if again {
		news = append(news, bus.Entry{Synced: true})
	}
	return news, m.changed
}
