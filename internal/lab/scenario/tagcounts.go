package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
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

// fast reads a router's counters from tdpd's status socket; where tdpd does not run they are as they were.
func (t *tags) fast(ctx context.Context, router string) (c tagCounts, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(t.lab.Dir(router), "tdpd", "status.sock"))
	if err != nil {
		return t.counted[router], nil
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := errors.Join(conn.SetDeadline(deadline), conn.(*net.UnixConn).CloseWrite()); err != nil {
		return c, fmt.Errorf("ask tdpd of %s: %w", router, err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return c, fmt.Errorf("ask tdpd of %s: %w", router, err)
	}
	var answer tdpdv1.Answer
	if err := protojson.Unmarshal(text, &answer); err != nil {
		return c, fmt.Errorf("ask tdpd of %s: %w: %s", router, err, text)
	}
	counts := answer.GetStatus().GetFastPath()
	return tagCounts{counts["pushed"], counts["outsider"]}, nil
}
