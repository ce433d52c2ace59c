package main

import (
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/testnet"
)

// Single senders are permitted and denied (Fig 7B) in two routers in a row, like masks.
func TestNetSingleSenders(t *testing.T) {
	for _, mode := range []string{"owner", "source"} {
		t.Run(mode, func(t *testing.T) { singleSenders(t, mode) })
	}
}

func singleSenders(t *testing.T, mode string) {
	r := newRig(t)
	r.mode = mode
	r.startBoth()
	even, odd := portion.Host(evenUser), portion.Host(oddUser)
	allBut := func(p portion.Portion) portion.Set {
		return portion.Set{Permit: []portion.Portion{portion.All4()}, Deny: []portion.Portion{p}}
	}
	only := func(p portion.Portion) portion.Set { return portion.Set{Permit: []portion.Portion{p}} }
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, allBut(even))))
	r.send(r.s2, proper, r.sign(r.newJoin(server2, 1, only(even))))
	for _, name := range []string{"r2", "r1"} {
		r.joined(name, 2)
		for _, j := range r.status(name).Joins {
			if j.Requester == "10.3.1.11" && !slices.Equal(j.Deny, []string{evenUser.String()}) {
				t.Errorf("%s: s1 denies %v", name, j.Deny)
			}
		}
	}
	r.gets(r.atS2, evenUser)
	r.gets(r.atS1, oddUser)
	if r.atS1.even.Load() != 0 || r.atS2.odd.Load() != 0 {
		t.Fatalf("packets of denied senders: %d at s1, %d at s2", r.atS1.even.Load(), r.atS2.odd.Load())
	}

	// The two change places.
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 2, allBut(odd))))
	r.send(r.s2, proper, r.sign(r.newJoin(server2, 2, only(odd))))
	r.gets(r.atS2, oddUser)
	r.gets(r.atS1, evenUser)
}

// A join outside the group's sessions is not timely; when they are changed in the record, the next one is.
func TestNetSessions(t *testing.T) {
	r := newRig(t)
	day := time.Now().UTC().AddDate(0, 0, 3).Weekday() // far from now, whenever this runs
	closed := record.Session{To: 24 * 60, Location: time.UTC}
	closed.Days[day] = true
	open := closed
	for d := range open.Days {
		open.Days[d] = !closed.Days[d]
	}
	r.pin(closed)
	r.startBoth()
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
	r.refused("r2", "not_timely", 1)
	if st := r.status("r2"); st.Admitted != 0 || len(st.Joins) != 0 {
		t.Fatalf("joins outside the sessions: %v", st.Joins)
	}

	r.pin(open)
	testnet.Eventually(t, 15*time.Second, func() bool {
		r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
		return r.status("r2").Admitted > 0
	}, "r2 reads the record again")
	r.joined("r1", 1)
	r.gets(r.atS1, evenUser)
}
