package scenario

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// tagCounts are packets by what routers' fast paths did with them.
type tagCounts struct{ pushed, outsiders uint64 }

// tagDelta is what was done since the last count.
type tagDelta struct {
	byDirectors, byUpstreams uint64 // packets for the VIP that got their label there
}

// count reads all routers' counters.
func (t *tags) count(ctx context.Context) (d tagDelta, err error) {
	for _, of := range []struct {
		routers []string
		to      *uint64
	}{{directors, &d.byDirectors}, {upstreams, &d.byUpstreams}} {
		for _, r := range of.routers {
			c, err := t.fast(ctx, r)
			if err != nil {
				return d, err
			}
			*of.to += c.pushed - t.counted[r].pushed
			t.counted[r] = c
		}
	}
	return d, nil
}

// countPhase enters what a phase brought.
func (t *tags) countPhase(ctx context.Context, phase string) error {
	d, err := t.count(ctx)
	if err != nil {
		return err
	}
	switch phase {
	case phaseThrough, phaseTagged:
		t.tagged.FirstPacketsViaDirector += d.byDirectors
	default:
		t.tagged.PacketsViaDirector += d.byDirectors
	}
	t.tagged.PacketsTagged += d.byUpstreams
	t.o.Progress.Note("since the last count directors tagged %d packets, upstream routers %d", d.byDirectors, d.byUpstreams)
	return nil
}

// fast reads a router's counters; of one where tdpd has never run they are zero.
func (t *tags) fast(_ context.Context, router string) (c tagCounts, err error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(t.lab.BPFFS(), router, "tdpd", "fast_counts"), nil)
	if err != nil {
		return c, nil
	}
	defer m.Close()
	for key, to := range map[uint32]*uint64{0: &c.pushed, 9: &c.outsiders} {
		var each []uint64
		if err := m.Lookup(key, &each); err != nil {
			return c, fmt.Errorf("counters of %s: %w", router, err)
		}
		for _, n := range each {
			*to += n
		}
	}
	return c, nil
}
