package leader

import (
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func decodeRegistration(data []byte) (Registration, error) {
	var p allocv1.Registration
	if err := proto.Unmarshal(data, &p); err != nil {
		return Registration{}, err
	}
	if err := service.CheckName(p.GetService()); err != nil {
		return Registration{}, fmt.Errorf("service: %w", err)
	}
	if err := service.CheckName(p.GetName()); err != nil {
		return Registration{}, fmt.Errorf("server: %w", err)
	}
	address, _ := netip.ParseAddr(p.GetAddress()) // not known is as good as not readable
	var load *alloc.Load
	if p.Load != nil {
		l := alloc.LoadFromProto(p.Load)
		load = &l
	}
	return Registration{
		Load: load, Service: p.GetService(), Server: p.GetName(), Address: address, Weight: int(min(p.GetWeight(), alloc.MaxWeight)),
		Healthy: p.GetHealthy(), BootID: p.GetBootId(),
	}, nil
}

func decodeOperator(data []byte) (Operator, error) {
	var p allocv1.Operator
	if err := proto.Unmarshal(data, &p); err != nil {
		return Operator{}, err
	}
	o := Operator{Drained: p.GetDrained()}
	if p.Weight != nil {
		w := int(min(p.GetWeight(), alloc.MaxWeight))
		o.Weight = &w
	}
	return o, nil
}

// maxMoves bounds the history of a service.
const maxMoves = 64

// addMove appends a move to a value of the bucket "moves".
func addMove(history []byte, m Move) ([]byte, error) {
	p := decodeMoves(history)
	p.Moves = append(p.Moves, &allocv1.Move{
		Service: m.Service, Epoch: alloc.EpochToProto(m.Epoch), FractionMoved: m.Moved, FractionNeeded: m.Needed,
		ConnectionsAffected: uint32(m.Closed), Ms: float64(m.Took.Microseconds()) / 1000, Reason: m.Reason,
		AtUnixNano: m.Finished.UnixNano(), Missing: m.Missing,
	})
	if n := len(p.Moves); n > maxMoves {
		p.Moves = p.Moves[n-maxMoves:]
	}
	return proto.Marshal(p)
}

// setDampened says in a value of the bucket "moves" who is dampened.
func setDampened(history []byte, d Dampened) ([]byte, error) {
	p := decodeMoves(history)
	p.Dampened = nil
	for _, s := range d.Servers {
		p.Dampened = append(p.Dampened, &allocv1.Dampened{Server: s.Name, UntilUnixNano: s.Until.UnixNano()})
	}
	return proto.Marshal(p)
}

// decodeMoves reads a value of the bucket "moves"; nil is an empty one. A damaged history is begun anew.
func decodeMoves(history []byte) *allocv1.Moves {
	var p allocv1.Moves
	if err := proto.Unmarshal(history, &p); err != nil {
		p.Reset()
	}
	return &p
}
