package control

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// log is what a member hears.
type log struct {
	health   []Health // of s1
	messages []Kind
}

func (l *log) put(e Event) {
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
		beats := 0
		s1 := h.Join(Member{Name: "s1", Role: Server}, func() { beats++ })
		d1 := h.Join(Member{Name: "d1", Role: Director, Leader: true}, nil)
		var heard log
		stop := d1.Listen(heard.put)
		s1.SetStatus(Status{OK: true})
		pass(time.Second)
		if !slices.Equal(heard.health, []Health{Available}) || beats < 19 || beats > 21 {
			t.Errorf("heard %v and %d heartbeats in a second", heard.health, beats)
		}
		s1.SetStatus(Status{Why: "broken"})
		h.Cut("s1", "d1", true)
		pass(240 * time.Millisecond)
		if !slices.Equal(heard.health, []Health{Available, Unwell}) {
			t.Errorf("heard %v before the time", heard.health)
		}
		pass(20 * time.Millisecond)
		h.Cut("s1", "d1", false)
		pass(time.Second)
		if !slices.Equal(heard.health, []Health{Available, Unwell, Silent, Unwell}) {
			t.Errorf("heard %v", heard.health)
		}
		var late log
		defer d1.Listen(late.put)()
		pass(time.Millisecond)
		if !slices.Equal(late.health, []Health{Unwell}) {
			t.Errorf("a late listener heard %v, want how it is now", late.health)
		}
		stop()
		s1.Leave()
		pass(time.Second)
		if len(heard.health) != 4 || !slices.Equal(late.health, []Health{Unwell, Silent}) {
			t.Errorf("heard %v and %v after it was killed", heard.health, late.health)
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
		if !slices.Equal(atServer.messages, []Kind{KindAnnounce}) || !slices.Equal(atDirector.messages, []Kind{KindPrepared, KindTakeover}) {
			t.Errorf("the server got %v, the director %v", atServer.messages, atDirector.messages)
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
		if !slices.Equal(heard.health, []Health{Available}) {
			t.Errorf("heard %v during the restart", heard.health)
		}
		pass(2 * time.Second)
		if !slices.Equal(heard.health, []Health{Available, Silent}) {
			t.Errorf("heard %v after it", heard.health)
		}
		d1.Leave()
	})
}
