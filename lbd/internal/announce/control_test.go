package announce

import (
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/internal/control"
)

// TestMessagesOverTheControlChannel: each comes to the listeners of all processes, of the sender's too, if the sender may say it.
func TestMessagesOverTheControlChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
		var mu sync.Mutex // each member has its own goroutine
		got := map[string][]Message{}
		announcers := map[string]*Control{}
		for _, who := range []control.Member{{Name: "d1", Role: control.Director, Leader: true}, {Name: "s1", Role: control.Server}, {Name: "s2", Role: control.Server}} {
			m := h.Join(who, nil)
			defer m.Leave()
			a := NewControl(m, slog.New(slog.DiscardHandler))
			stop, err := a.Listen(func(m Message) {
				mu.Lock()
				defer mu.Unlock()
				got[who.Name] = append(got[who.Name], m)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			announcers[who.Name] = a
		}
		time.Sleep(time.Second)
		for _, m := range messages(t) {
			from := "s1"
			switch m := m.(type) {
			case Announce, Commit:
				from = "d1"
			case Done:
				from = m.Server
			}
			if err := announcers[from].Send(m); err != nil {
				t.Errorf("%T: %v", m, err)
			}
			synctest.Wait()
			mu.Lock()
			for _, name := range []string{"d1", "s1", "s2"} {
				if len(got[name]) != 1 {
					t.Errorf("%T: %s got %v", m, name, got[name])
				} else if d := cmp.Diff(m, got[name][0], cmpopts.EquateComparable(netip.Addr{})); d != "" {
					t.Errorf("%T: %s got %s", m, name, d)
				}
				delete(got, name)
			}
			mu.Unlock()
		}
		for _, m := range []Message{Prepared{Service: "web", Server: "s2"}, Ceased{Service: "web", Server: "s2"}, Done{Service: "web", Server: "s2"}} {
			if err := announcers["s1"].Send(m); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(got["d1"]) != 0 {
			t.Errorf("s1 spoke for s2: %v", got["d1"])
		}
	})
}
