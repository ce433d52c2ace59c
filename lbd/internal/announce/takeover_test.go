package announce

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
)

func TestTakeoverIsToldByItsSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
		s1, s2 := h.Join(control.Member{Name: "s1", Role: control.Server}, nil), h.Join(control.Member{Name: "s2", Role: control.Server}, nil)
		mail := control.NewMailbox(8)
		defer s2.Listen(mail.Put)()
		time.Sleep(time.Second)
		told := Takeover{Service: "web", Epoch: epoch.Epoch{Term: 3, Number: 7}, From: "s9"}
		if err := SendTakeover(s1, told); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, messages := mail.Take()
		got, err := Takeovers(messages)
		told.By = "s1"
		if err != nil || len(got) != 1 || got[0] != told {
			t.Errorf("got %+v, %v, want %+v", got, err, told)
		}
		s1.Leave()
		s2.Leave()
	})
}

func FuzzTakeovers(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x0a\x03web\x12\x04\x08\x03\x10\x07\x1a\x02s9"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := Takeovers([]control.Received{
			{Kind: control.KindDone, Body: body}, {From: control.Member{Name: "s1"}, Kind: control.KindTakeover, Body: body},
		})
		if len(got) > 1 || (err == nil) != (len(got) == 1) || len(got) == 1 && got[0].By != "s1" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
