package policy

import (
	"slices"

	"github.com/manycast/manycast/internal/portion"
)

// maxAsked bounds what is remembered of a server that asks for other portions in each report.
const maxAsked = 4 * maxWanted

// Wishes is what a server has asked for since the last decision that reports could move users by. What each report asks for counts as wanted,
// what any of them asks for is kept where the server has it: so wishes that come and go within an interval neither give nor take back, and
// those that come and go more slowly do it once an interval at most. The zero Wishes has heard nothing.
type Wishes struct {
	heard bool
	last  []portion.Portion
	all   []portion.Portion // in each report
	any   []portion.Portion // in some report
}

// Hear takes what a report asks for; of more than 64 portions the first.
func (w *Wishes) Hear(wanted []portion.Portion) {
	wanted = first(wanted, maxWanted)
	if w.heard && slices.Equal(wanted, w.last) {
		return
	}
	w.last = slices.Clone(wanted)
	if !w.heard {
		w.heard = true
		w.Begin()
		return
	}
	w.all = slices.DeleteFunc(w.all, func(q portion.Portion) bool { return !slices.Contains(wanted, q) })
	for _, q := range wanted {
		if len(w.any) < maxAsked && !slices.Contains(w.any, q) {
			w.any = append(w.any, q)
		}
	}
}

// Begin forgets all but the last report: the next interval begins with it.
func (w *Wishes) Begin() { w.all, w.any = slices.Clone(w.last), slices.Clone(w.last) }

// wanted is what a server asks for: it may be given that.
func (in Input) wanted(server string) []portion.Portion {
	if w := in.Wishes[server]; w.heard {
		return w.all
	}
	return first(in.Loads[server].Wanted, maxWanted)
}

// asked is what a server has asked for: it keeps that. It is false for a server that says nothing.
func (in Input) asked(server string) ([]portion.Portion, bool) {
	if w := in.Wishes[server]; w.heard {
		return w.any, true
	}
	l, said := in.Loads[server]
	return first(l.Wanted, maxWanted), said
}
