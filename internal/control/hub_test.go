package control

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// log is what a member hears, in its own goroutine.
type log struct {
	mu       sync.Mutex
	health   []Health // of s1
	messages []Kind
}

func (l *log) of() []Health {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.health)
}

func (l *log) kinds() []Kind {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.messages)
}

func (l *log) put(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e := e.(type) {
	case Changed:
		if e.Member.Name == "s1" {
			l.health = append(l.health, e.Member.Health)
		}
	case Received:
		l.messages = append(l.messages, e.Kind)
	}
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestHubTellsWhoIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(50*time.Millisecond, 250*time.Millisecond)
		var beats atomic.Int64
		s1 := h.Join(Member{Name: "s1", Role: Server}, func() { beats.Add(1) })
		d1 := h.Join(Member{Name: "d1", Role: Director, Leader: true}, nil)
		var heard log
		stop := d1.Listen(heard.put)
		s1.SetStatus(Status{OK: true})
		pass(time.Second)
		if !slices.Equal(heard.of(), []Health{Available}) || beats.Load() < 19 || beats.Load() > 21 {
			t.Errorf("heard %v and %d heartbeats in a second", heard.of(), beats.Load())
		}
		s1.SetStatus(Status{Why: "broken"})
		h.Cut("s1", "d1", true)
		pass(240 * time.Millisecond)
		if !slices.Equal(heard.of(), []Health{Available, Unwell}) {
			t.Errorf("heard %v before the time", heard.of())
		}
		pass(20 * time.Millisecond)
		h.Cut("s1", "d1", false)
		pass(time.Second)
		if !slices.Equal(heard.of(), []Health{Available, Unwell, Silent, Unwell}) {
			t.Errorf("heard %v", heard.of())
		}
		var late log
		defer d1.Listen(late.put)()
		pass(time.Millisecond)
		if !slices.Equal(late.of(), []Health{Unwell}) {
			t.Errorf("a late listener heard %v, want how it is now", late.of())
		}
		stop()
		s1.Leave()
		pass(time.Second)
		if len(heard.of()) != 4 || !slices.Equal(late.of(), []Health{Unwell, Silent}) {
			t.Errorf("heard %v and %v after it was killed", heard.of(), late.of())
		}
		d1.Leave()
	})
}

func TestHubDropsWhatACertificateDoesNotAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(50*time.Millisecond, 250*time.Millisecond)
		s1 := h.Join(Member{Name: "s1", Role: Server}, nil)
		d1 := h.Join(Member{Name: "d1", Role: Director, Leader: true}, nil)
		var atServer, atDirector log
		defer s1.Listen(atServer.put)()
		defer d1.Listen(atDirector.put)()
		pass(time.Second)
		for _, kind := range []Kind{KindAnnounce, KindPrepared, KindTakeover} {
			for _, m := range []*HubMember{s1, d1} {
				if err := m.Send(kind, nil); err != nil {
					t.Error(err)
				}
			}
		}
		pass(time.Millisecond)
		if !slices.Equal(atServer.kinds(), []Kind{KindAnnounce}) || !slices.Equal(atDirector.kinds(), []Kind{KindPrepared, KindTakeover}) {
			t.Errorf("the server got %v, the director %v", atServer.kinds(), atDirector.kinds())
		}
		s1.Leave()
		d1.Leave()
	})
}

func TestPausedMemberIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(50*time.Millisecond, 250*time.Millisecond)
		s1 := h.Join(Member{Name: "s1", Role: Server}, nil)
		d1 := h.Join(Member{Name: "d1", Role: Director}, nil)
		var heard log
		defer d1.Listen(heard.put)()
		s1.SetStatus(Status{OK: true})
		pass(time.Second)
		if err := s1.Pause(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		s1.Leave()
		pass(4 * time.Second)
		if !slices.Equal(heard.of(), []Health{Available, Available}) { // first, and that it restarts
			t.Errorf("heard %v during the restart", heard.of())
		}
		pass(2 * time.Second)
		if !slices.Equal(heard.of(), []Health{Available, Available, Silent}) {
			t.Errorf("heard %v after it", heard.of())
		}
		d1.Leave()
	})
}
