package probe

import (
	"net/netip"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	const every = 10 * time.Millisecond
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ms := func(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }
	// One question each 10 ms; a dot was answered, an x was not.
	questions := func(text string) (out []question) {
		for i, c := range text {
			out = append(out, question{at: ms(10 * i), answered: c == '.'})
		}
		return out
	}
	tests := []struct {
		text     string
		from, to int
		want     Gap
	}{
		{"..........", 20, 80, Gap{Asked: 6}},
		{"...x......", 20, 80, Gap{Asked: 6, Lost: 1, Longest: 10 * time.Millisecond, Last: ms(30), Since: ms(20)}},
		{"...xxx....", 20, 80, Gap{Asked: 6, Lost: 3, Longest: 30 * time.Millisecond, Last: ms(50), Since: ms(20)}},
		{"...xx.x...", 20, 80, Gap{Asked: 6, Lost: 3, Longest: 20 * time.Millisecond, Last: ms(60), Since: ms(20)}},
		{"xx........", 20, 80, Gap{Asked: 6}},
		{".......xx.", 20, 80, Gap{Asked: 6, Lost: 1, Longest: 20 * time.Millisecond, Last: ms(70), Since: ms(60)}},
		{"...xxxxxxx", 20, 80, Gap{Asked: 6, Lost: 5, Longest: 50 * time.Millisecond, Last: ms(70), Since: ms(20)}},
		{"..xxxxxx..", 20, 80, Gap{Asked: 6, Lost: 6, Longest: 60 * time.Millisecond, Last: ms(70), Since: ms(10)}},
	}
	for _, tt := range tests {
		var got Gap
		got.add(questions(tt.text), ms(tt.from), ms(tt.to), every)
		if got != tt.want {
			t.Errorf("%s from %d to %d: %+v, want %+v", tt.text, tt.from, tt.to, got, tt.want)
		}
	}
	// Of several users the worst counts.
	var both Gap
	both.add(questions("...x......"), ms(20), ms(80), every)
	both.add(questions("...xx....."), ms(20), ms(80), every)
	if want := (Gap{Asked: 12, Lost: 3, Longest: 20 * time.Millisecond, Last: ms(40), Since: ms(20)}); both != want {
		t.Errorf("two users: %+v, want %+v", both, want)
	}
	alice, bob := netip.MustParseAddr("10.1.0.11"), netip.MustParseAddr("10.1.0.12")
	a := &Asker{every: every, users: []*asking{{user: alice, questions: questions("...x......")}, {user: bob, questions: questions("...xx.....")}}}
	if g := a.Gap(ms(20), ms(80)); g.User != bob {
		t.Errorf("the longest is %v's, want %v's", g.User, bob)
	}
}

func TestAnsweredTwice(t *testing.T) {
	u := &asking{questions: make([]question, 3)}
	u.answer(0, "s1")
	u.answer(1, "s1")
	u.answer(1, "s2")
	u.answer(7, "s2") // was never asked
	u.answer(2, "s3")
	u.answer(2, "s3")
	got := (&Asker{users: []*asking{u}}).Twice()
	if len(got) != 2 || got[0] != (Twice{First: "s1", Second: "s2"}) || got[1] != (Twice{First: "s3", Second: "s3"}) || u.questions[0].by != "s1" {
		t.Errorf("%+v", got)
	}
}
