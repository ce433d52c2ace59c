package store

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// State is what the bucket "allocations" holds of a service. What is prepared was executed by nobody.
type State struct {
	Committed alloc.Allocation
	Prepared  alloc.Allocation
}

// DecodeState reads a value of the bucket.
func DecodeState(data []byte) (State, error) {
	var p allocv1.State
	if err := proto.Unmarshal(data, &p); err != nil {
		return State{}, err
	}
	committed, err := alloc.FromProto(p.GetCommitted())
	if err != nil {
		return State{}, fmt.Errorf("committed: %w", err)
	}
	prepared, err := alloc.FromProto(p.GetPrepared())
	if err != nil {
		return State{}, fmt.Errorf("prepared: %w", err)
	}
	return State{Committed: committed, Prepared: prepared}, nil
}

// DecodeCommitted reads what is committed in a value of the bucket. With an error goes the epoch, where that can be read: a leader of a newer
// release may say more than is understood here.
func DecodeCommitted(data []byte) (alloc.Allocation, epoch.Epoch, error) {
	var p allocv1.State
	if err := proto.Unmarshal(data, &p); err != nil {
		return alloc.Allocation{}, epoch.Epoch{}, err
	}
	a, err := alloc.FromProto(p.GetCommitted())
	return a, alloc.EpochFromProto(p.GetCommitted().GetEpoch()), err
}

// EncodeState writes a value of the bucket.
func EncodeState(service string, s State) ([]byte, error) {
	return proto.Marshal(&allocv1.State{
		Committed: alloc.ToProto(service, s.Committed), Prepared: alloc.ToProto(service, s.Prepared),
	})
}
