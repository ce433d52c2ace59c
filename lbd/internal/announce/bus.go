package announce

import (
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// Subjects on the bus.
const (
	subjectAnnounce = "lbd.announce"
	subjectPrepared = "lbd.prepared"
	subjectCommit   = "lbd.commit"
	subjectCeased   = "lbd.ceased"
	subjectDone     = "lbd.done"
)

// Bus is an Announcer over the bus.
type Bus struct {
	conn *bus.Conn
	log  *slog.Logger
}

var _ Announcer = (*Bus)(nil)

// NewBus returns an Announcer over conn; what cannot be decoded is logged.
func NewBus(conn *bus.Conn, log *slog.Logger) *Bus { return &Bus{conn, log} }

// Send publishes m.
func (b *Bus) Send(m Message) error {
	subject, p := encode(m)
	return b.conn.Publish(subject, p)
}

// Listen subscribes to all five subjects.
func (b *Bus) Listen(handle func(Message)) (stop func(), err error) {
	return b.conn.Subscribe("lbd.*", func(msg bus.Msg) {
		m, err := decode(msg.Subject, msg.Data)
		switch {
		case errors.Is(err, errOther):
		case err != nil:
			b.log.Warn("message on the bus is not understood", "subject", msg.Subject, "err", err)
		default:
			handle(m)
		}
	})
}

func encode(m Message) (subject string, p proto.Message) {
	switch m := m.(type) {
	case Announce:
		return subjectAnnounce, &allocv1.Announce{
			Allocation: alloc.ToProto(m.Service, m.Allocation), Previous: alloc.ToProto(m.Service, m.Previous),
		}
	case Prepared:
		return subjectPrepared, &allocv1.Prepared{Service: m.Service, Epoch: alloc.EpochToProto(m.Epoch), Server: m.Server}
	case Commit:
		return subjectCommit, &allocv1.Commit{Allocation: alloc.ToProto(m.Service, m.Allocation)}
	case Ceased:
		return subjectCeased, &allocv1.Ceased{Service: m.Service, Epoch: alloc.EpochToProto(m.Epoch), Server: m.Server}
	case Done:
		return subjectDone, &allocv1.Done{
			Service: m.Service, Epoch: alloc.EpochToProto(m.Epoch), Server: m.Server, ConnectionsClosed: uint32(m.Closed),
		}
	}
	panic(fmt.Sprintf("announce: message of type %T", m)) // the interface is sealed
}

// errOther marks subjects beside ours.
var errOther = errors.New("subject of something else")

func decode(subject string, data []byte) (Message, error) {
	switch subject {
	case subjectAnnounce:
		var p allocv1.Announce
		if err := proto.Unmarshal(data, &p); err != nil {
			return nil, err
		}
		a, err := allocation(p.GetAllocation())
		if err != nil {
			return nil, err
		}
		previous, err := alloc.FromProto(p.GetPrevious())
		return Announce{p.GetAllocation().GetService(), a, previous}, err
	case subjectCommit:
		var p allocv1.Commit
		if err := proto.Unmarshal(data, &p); err != nil {
			return nil, err
		}
		a, err := allocation(p.GetAllocation())
		return Commit{p.GetAllocation().GetService(), a}, err
	case subjectPrepared:
		var p allocv1.Prepared
		err := proto.Unmarshal(data, &p)
		return Prepared{p.GetService(), alloc.EpochFromProto(p.GetEpoch()), p.GetServer()}, err
	case subjectCeased:
		var p allocv1.Ceased
		err := proto.Unmarshal(data, &p)
		return Ceased{p.GetService(), alloc.EpochFromProto(p.GetEpoch()), p.GetServer()}, err
	case subjectDone:
		var p allocv1.Done
		err := proto.Unmarshal(data, &p)
		return Done{p.GetService(), alloc.EpochFromProto(p.GetEpoch()), p.GetServer(), int(p.GetConnectionsClosed())}, err
	}
	return nil, errOther
}

func allocation(p *allocv1.Allocation) (alloc.Allocation, error) {
	if p == nil {
		return alloc.Allocation{}, errors.New("no allocation in it")
	}
	return alloc.FromProto(p)
}
