package announce

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	controlv1 "github.com/manycast/manycast/proto/control/v1"
)

// Takeover says on the control channel that By serves in the stead of the silent From. It is no part of a reallocation: nobody
// waits for it, and there is none without a channel.
type Takeover struct {
	Service string
	Epoch   epoch.Epoch
	From    string
	By      string // its sender
}

// SendTakeover tells all other members.
func SendTakeover(c control.Channel, t Takeover) error {
	body, err := proto.Marshal(&controlv1.Takeover{Service: t.Service, Epoch: alloc.EpochToProto(t.Epoch), From: t.From})
	if err != nil {
		return fmt.Errorf("takeover from %s: %w", t.From, err)
	}
	return c.Send(control.KindTakeover, body)
}

// Takeovers are those among what came by the channel, and what is none though it says so as an error.
func Takeovers(messages []control.Received) ([]Takeover, error) {
	var out []Takeover
	var bad error
	for _, m := range messages {
		if m.Kind != control.KindTakeover {
			continue
		}
		var p controlv1.Takeover
		if err := proto.Unmarshal(m.Body, &p); err != nil {
			bad = fmt.Errorf("takeover told by %s: %w", m.From.Name, err)
			continue
		}
		out = append(out, Takeover{p.GetService(), alloc.EpochFromProto(p.GetEpoch()), p.GetFrom(), m.From.Name})
	}
	return out, bad
}
