package edge

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// Subjects of the bus, see tdpd.proto.
const (
	subjectAsk    = "tdpd.ask"
	subjectBind   = "tdpd.bind" // of one router
	subjectEvents = "tdpd.events"
)

// ServeBus answers for the router on the bus until ctx is done. The bus may be away.
func ServeBus(ctx context.Context, c *bus.Conn, name string, a Asker) error {
	handle := func(m bus.Msg) (proto.Message, error) {
		r := &tdpdv1.Request{}
		if err := proto.Unmarshal(m.Data, r); err != nil {
			return nil, err
		}
		if _, clears := r.GetAbout().(*tdpdv1.Request_Clear); clears && m.Subject == subjectAsk {
			return nil, errors.New("sessions are cleared at one router: name it")
		}
		if m.Subject == subjectAsk && changesBGP(r) {
			return nil, errors.New("BGP is changed at one router: name it")
		}
		if a := r.GetAnnounce(); m.Subject == subjectAsk && (a.GetDrain() || a.GetBack()) {
			return nil, errors.New("routers are drained one by one: name it")
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return answerOf(a.Ask(ctx, r))
	}
	for _, subject := range []string{subjectAsk, bus.Of(subjectAsk, name)} {
		stop, err := c.Handle(subject, handle)
		if err != nil {
			return err
		}
		defer stop()
	}
	bind := func(m bus.Msg) (proto.Message, error) {
		r := &tdpdv1.Request{}
		if err := proto.Unmarshal(m.Data, r); err != nil {
			return nil, err
		}
		if r.GetBind() == nil && r.GetOnly() == nil {
			return nil, fmt.Errorf("%s takes bindings of users, and nothing else", m.Subject)
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return a.Ask(ctx, r)
	}
	stop, err := c.Handle(bus.Of(subjectBind, name), bind)
	if err != nil {
		return err
	}
	defer stop()
	<-ctx.Done()
	return nil
}
