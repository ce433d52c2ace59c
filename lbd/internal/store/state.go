package store

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
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

// EncodeState writes a value of the bucket.
func EncodeState(service string, s State) ([]byte, error) {
	return proto.Marshal(&allocv1.State{
		Committed: alloc.ToProto(service, s.Committed), Prepared: alloc.ToProto(service, s.Prepared),
	})
}
