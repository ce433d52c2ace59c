package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// pageMost is how much one answer has: what is asked holds up the loop.
const pageMost = 2000

// Ask answers a request, and does what it wants done. It may be called from any goroutine while Run runs; otherwise it waits for the
// end of ctx.
func (s *Service) Ask(ctx context.Context, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	if a := r.GetAnnounce(); a != nil {
		return s.askAnnounce(ctx, a)
	}
	answer := &tdpdv1.Answer{Router: s.Config.Name}
	work, err := s.asked(r, answer)
	if err != nil {
		return nil, err
	}
	var failed error
	if err := s.Do(ctx, func(now time.Time) { failed = work(now) }); err != nil {
		return nil, fmt.Errorf("router %s does not answer in time: %w", s.Config.Name, err)
	}
	return answer, failed
}

// asked looks at a request, and gives what the loop has to do for it.
func (s *Service) asked(r *tdpdv1.Request, answer *tdpdv1.Answer) (func(now time.Time) error, error) {
	switch about := r.GetAbout().(type) {
	case *tdpdv1.Request_Status:
		return func(now time.Time) error {
			answer.About = &tdpdv1.Answer_Status{Status: s.status(now)}
			return nil
		}, nil
	case *tdpdv1.Request_Fecs:
		return s.askFECs(about.Fecs, answer)
	case *tdpdv1.Request_Table:
		return s.askTable(about.Table, answer)
	case *tdpdv1.Request_Step:
		return s.askStep(about.Step, answer)
	case *tdpdv1.Request_Clear:
		return s.askClear(about.Clear, answer)
	case *tdpdv1.Request_Only:
		return func(now time.Time) error {
			answer.About = &tdpdv1.Answer_Bind{Bind: &tdpdv1.Bound{}}
			s.Only(now, about.Only.GetServices())
			return nil
		}, nil
	case *tdpdv1.Request_Bind:
		return s.askBind(about.Bind, answer)
	}
	return nil, errors.New("a request about nothing that this router knows: is it of an older release?")
}

func (s *Service) askClear(r *tdpdv1.ClearRequest, answer *tdpdv1.Answer) (func(time.Time) error, error) {
	id, err := parseIdentifier(r.GetNeighbor())
	if err != nil {
		return nil, err
	}
	return func(now time.Time) error {
		if err := s.Clear(now, id); err != nil {
			return fmt.Errorf("router %s: %w: %v", s.Config.Name, err, id)
		}
		answer.About = &tdpdv1.Answer_Clear{Clear: &tdpdv1.Cleared{Neighbor: id.String()}}
		return nil
	}, nil
}

func (s *Service) askBind(r *tdpdv1.BindRequest, answer *tdpdv1.Answer) (func(time.Time) error, error) {
	b, err := binding.FromProto(r.GetBinding())
	if err != nil {
		return nil, err
	}
	return func(now time.Time) error {
		answer.About = &tdpdv1.Answer_Bind{Bind: &tdpdv1.Bound{}}
		return s.Bind(now, b)
	}, nil
}

// parseIdentifier reads an LDP identifier of the platform's label space, or the LSR id in it.
func parseIdentifier(text string) (wire.Identifier, error) {
	a, err := netip.ParseAddr(strings.TrimSuffix(text, ":0"))
	if err != nil || !a.Is4() {
		return wire.Identifier{}, fmt.Errorf("neighbor %q: want a router id, such as 10.0.0.2", text)
	}
	return wire.Identifier{LSR: a.As4()}, nil
}

// most bounds what a request wants of one answer.
func most(limit uint32) int {
	if limit == 0 {
		return pageMost
	}
	return int(min(limit, pageMost))
}

// text is an address or a prefix; empty for none.
func text(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// name is an identifier; empty for nobody's.
func name(id wire.Identifier) string {
	if id == (wire.Identifier{}) {
		return ""
	}
	return id.String()
}
