package leader

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// FuzzDecode feeds what lies on the bus to each decoder of the leader.
func FuzzDecode(f *testing.F) {
	weight := uint32(7)
	for _, m := range []proto.Message{
		&allocv1.Registration{Service: "web", Name: "s1", Address: "10.0.0.1", Weight: 3, Healthy: true, BootId: 5},
		&allocv1.Operator{Drained: true, Weight: &weight},
		&allocv1.Moves{Moves: []*allocv1.Move{{Service: "web", Reason: "s1 is dead"}}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeRegistration(data); err == nil {
			if service.CheckName(r.Service) != nil || service.CheckName(r.Server) != nil || r.Weight < 0 || r.Weight > alloc.MaxWeight {
				t.Errorf("registration %+v", r)
			}
		}
		if o, err := decodeOperator(data); err == nil && o.Weight != nil && (*o.Weight < 0 || *o.Weight > alloc.MaxWeight) {
			t.Errorf("operator's weight %d", *o.Weight)
		}
		history, err := addMove(data, Move{Service: "web"})
		var p allocv1.Moves
		if err != nil || proto.Unmarshal(history, &p) != nil || len(p.Moves) == 0 || len(p.Moves) > maxMoves ||
			p.Moves[len(p.Moves)-1].Service != "web" {
			t.Errorf("history of %d moves, %v", len(p.Moves), err)
		}
		kept, err := setDampened(history, Dampened{Service: "web", Servers: []DampenedServer{{"s1", time.Unix(7, 0)}}})
		var q allocv1.Moves
		if err != nil || proto.Unmarshal(kept, &q) != nil || len(q.Moves) != len(p.Moves) || len(q.Dampened) != 1 || q.Dampened[0].Server != "s1" {
			t.Errorf("history of %d moves and %v, %v", len(q.Moves), q.Dampened, err)
		}
	})
}
