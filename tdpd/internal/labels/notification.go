package labels

import "github.com/manycast/manycast/tdpd/internal/wire"

// notified is a peer's notification that does not end the session (RFC 5036 sections 3.5.1.2.5 to 3.5.1.2.8).
func (l *Labels) notified(p *peer, n wire.Notification) {
	switch n.Status.Code {
	case wire.StatusEndOfLIB:
		l.endOfLIB(p, n.FEC)
	case wire.StatusLabelResourcesAvailable:
		l.retry(func(r *request) bool { return r.peer == p && r.starved })
	case wire.StatusNoRoute, wire.StatusLoopDetected, wire.StatusNoLabelResources, wire.StatusUnknownFEC:
		l.refusedRequest(p, n.Status)
	case wire.StatusLabelRequestAborted: // forgotten when it was aborted
	default:
		l.complain(p, ofNotifications, "says %v of its message %d", n.Status.Code, n.Status.MessageID)
	}
}

// endOfLIB has said all that a peer has to say of a family: what is still stale does not hold (RFC 5919 section 5).
func (l *Labels) endOfLIB(p *peer, list wire.FEC) {
	for _, e := range list {
		if w, ok := e.(wire.TypedWildcard); ok && !p.until.IsZero() {
			l.sweep(p, families{w.Family == wire.IPv4, w.Family == wire.IPv6})
		}
	}
}
