package scenario

import (
	"context"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// How servers close connections: those that they do not keep, under strategy reset, and those that they keep until a break point, under forward.
const (
	phaseInOrder = ": connections closed in order"
	phaseBreak   = ": connections closed at a break point"
)

// The service of these phases. A break point is breakAfter the move, and of a connection where it has carried nothing for a second.
const (
	breakAfter = time.Second
	saysOrder  = "{strategy: reset, close: orderly}"
	saysBreak  = "{strategy: [forward], break: 1s}"
)

// closings are when users moved in these phases, and the phases' ends.
type closings struct{ order, breaks report.Span }

func (h *handover) closeInOrder(ctx context.Context) (err error) {
	h.closings.order, err = h.moveUnder(ctx, saysOrder, turnEvery)
	return err
}

// closeAtBreaks is the last phase of its strategy: from then on connections end.
func (h *handover) closeAtBreaks(ctx context.Context) (err error) {
	h.mu.Lock()
	h.tally.Periods[len(h.tally.Periods)-1].Breaks = time.Now()
	h.mu.Unlock()
	h.closings.breaks, err = h.moveUnder(ctx, saysBreak, breakAfter+3*time.Second)
	return err
}

// moveUnder has all users move while the service says something else, and watches for a while what becomes of them.
func (h *handover) moveUnder(ctx context.Context, says string, watch time.Duration) (span report.Span, err error) {
	before := h.says
	defer func() { h.says = before }()
	h.says = says
	if err := h.apply(ctx); err != nil {
		return span, err
	}
	if err := h.watchUntil(ctx, time.Now().Add(turnEvery)); err != nil { // agents have heard it
		return span, err
	}
	for g := range h.first {
		h.next(g)
	}
	span.Start = time.Now()
	if err := h.move(ctx); err != nil {
		return span, err
	}
	err = h.watchUntil(ctx, time.Now().Add(watch))
	span.End = time.Now()
	return span, err
}

// checkOrder: connections that wait for requests end in order, idle ones for certain. The caller holds mu.
func (h *handover) checkOrder() {
	ended := h.tally.Ended(h.closings.order.Start, h.closings.order.End)
	h.check("with close: orderly servers end connections in order", 2*ended[traffic.EOF] >= len(h.users),
		"%d by the end of the stream, %d reset, for their users' packets came to the new server first; %d users with an idle connection and two that are asked all the time",
		ended[traffic.EOF], ended[traffic.Reset], len(h.users))
}

// checkBreaks: those end that carry nothing, when it is time. The caller holds mu.
func (h *handover) checkBreaks() {
	span := h.closings.breaks
	due := span.Start.Add(breakAfter)
	early, late := total(h.tally.Ended(span.Start, due)), total(h.tally.Ended(due, span.End))
	h.check("with break servers close what is idle, later", early == 0 && late > 0 && late <= len(h.users),
		"%d ended within %v of the move, %d later, of %d users with an idle connection and two that are asked all the time", early, breakAfter, late, len(h.users))
}

func total(by map[traffic.How]int) (n int) {
	for _, of := range by {
		n += of
	}
	return n
}
