package edge

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// Subjects of the bus, see tdpd.proto.
const (
	subjectAsk    = "tdpd.ask"
	subjectEvents = "tdpd.events"
)

// of is the subject of one router.
func of(subject, router string) string {
	return subject + "." + strings.ReplaceAll(router, ".", "-")
}

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
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return a.Ask(ctx, r)
	}
	for _, subject := range []string{subjectAsk, of(subjectAsk, name)} {
		stop, err := c.Handle(subject, handle)
		if err != nil {
			return err
		}
		defer stop()
	}
	<-ctx.Done()
	return nil
}
