package probe

import (
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
			out = append(out, question{ms(10 * i), c == '.'})
		}
		return out
	}
	tests := []struct {
		text     string
		from, to int
		want     Gap
	}{
		{"..........", 20, 80, Gap{Asked: 6}},
		{"...x......", 20, 80, Gap{Asked: 6, Lost: 1, Longest: 10 * time.Millisecond, Last: ms(30)}},
		{"...xxx....", 20, 80, Gap{Asked: 6, Lost: 3, Longest: 30 * time.Millisecond, Last: ms(50)}},
		{"...xx.x...", 20, 80, Gap{Asked: 6, Lost: 3, Longest: 20 * time.Millisecond, Last: ms(60)}},
		{"xx........", 20, 80, Gap{Asked: 6}},
		{".......xx.", 20, 80, Gap{Asked: 6, Lost: 1, Longest: 20 * time.Millisecond, Last: ms(70)}},
		{"...xxxxxxx", 20, 80, Gap{Asked: 6, Lost: 5, Longest: 50 * time.Millisecond, Last: ms(70)}},
		{"..xxxxxx..", 20, 80, Gap{Asked: 6, Lost: 6, Longest: 60 * time.Millisecond, Last: ms(70)}},
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
	if want := (Gap{12, 3, 20 * time.Millisecond, ms(40)}); both != want {
		t.Errorf("two users: %+v, want %+v", both, want)
	}
}
