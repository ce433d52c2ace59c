package service

import (
	"context"
	"fmt"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Announcer announces VIPs by BGP; a routing.Loop is one.
type Announcer interface {
	// Drain begins to withdraw all, or, with back, to announce it again.
	Drain(ctx context.Context, back bool) error
	Progress(ctx context.Context) (announcing.Progress, error)
}

// askAnnounce is answered beside the loop, which has nothing to do with it.
func (s *Service) askAnnounce(ctx context.Context, r *tdpdv1.AnnounceRequest) (*tdpdv1.Answer, error) {
	if s.Announcer == nil {
		return &tdpdv1.Answer{Router: s.Config.Name}, fmt.Errorf("router %s: %w", s.Config.Name, bgp.ErrNone)
	}
	var err error
	if r.GetDrain() || r.GetBack() {
		err = s.Announcer.Drain(ctx, r.GetBack())
	}
	var p announcing.Progress
	if err == nil {
		p, err = s.Announcer.Progress(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("router %s: what it announces: %w", s.Config.Name, err)
	}
	return &tdpdv1.Answer{Router: s.Config.Name, About: &tdpdv1.Answer_Announce{Announce: announced(time.Now(), p)}}, nil
}

func announced(now time.Time, p announcing.Progress) *tdpdv1.Announced {
	out := &tdpdv1.Announced{
		Phase: p.Phase.String(), PhaseMs: now.Sub(p.Since).Milliseconds(), Waits: p.Waits.String(), LeftMs: -1, Drained: p.Drained, Forced: p.Forced,
	}
	if !p.Until.IsZero() {
		out.LeftMs = max(p.Until.Sub(now).Milliseconds(), 0)
	}
	if p.Server {
		out.Server = true
		for _, h := range p.Hosts {
			out.Hosts = append(out.Hosts, h.Addr().String())
		}
	}
	for _, v := range p.VIPs {
		one := &tdpdv1.AnnouncedVIP{Address: v.Address.String(), Announced: v.Announced, Reach: v.Reach.String(), Flaps: uint64(v.Flaps)}
		if !v.Damped.IsZero() {
			one.DampedMs = max(v.Damped.Sub(now).Milliseconds(), 1)
		}
		out.Vips = append(out.Vips, one)
	}
	return out
}
