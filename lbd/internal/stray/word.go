package stray

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Ask is a stray as all servers are told.
type Ask struct {
	Number  uint64 // counted by the asker, from 1
	Service string
	Flow    dataplane.Flow
	Frame   []byte // in the first word of a number, where it is short enough
}

// Holding answers an Ask.
type Holding struct {
	Asker  string
	Number uint64 // of the Ask
	Flow   dataplane.Flow
	Gone   bool // the connection is over
}

const maxService = 253 // bytes of a service's name

// ErrMalformed is what errors of decoding wrap.
var ErrMalformed = errors.New("malformed word about strays")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// EncodeAsks is the body of a message of control.KindStray.
func EncodeAsks(asks []Ask) ([]byte, error) {
	p := &handoverv1.Strays{}
	for _, a := range asks {
		p.Strays = append(p.Strays, &handoverv1.Stray{Number: a.Number, Service: a.Service, Flow: encodeFlow(a.Flow), Frame: a.Frame})
	}
	return proto.Marshal(p)
}

// EncodeHoldings is the body of a message of control.KindHolder.
func EncodeHoldings(holdings []Holding) ([]byte, error) {
	p := &handoverv1.Holdings{}
	for _, h := range holdings {
		p.Holdings = append(p.Holdings, &handoverv1.Holding{Asker: h.Asker, Number: h.Number, Flow: encodeFlow(h.Flow), Gone: h.Gone})
	}
	return proto.Marshal(p)
}

// DecodeAsks decodes the body of a message of control.KindStray. Errors wrap ErrMalformed.
func DecodeAsks(body []byte) ([]Ask, error) {
	var p handoverv1.Strays
	if err := proto.Unmarshal(body, &p); err != nil {
		return nil, malformed("strays: %v", err)
	}
	if len(p.GetStrays()) > maxItems {
		return nil, malformed("%d strays, at most %d", len(p.GetStrays()), maxItems)
	}
	out := make([]Ask, 0, len(p.GetStrays()))
	for _, s := range p.GetStrays() {
		flow, err := decodeFlow(s.GetFlow())
		switch {
		case err != nil:
			return nil, err
		case s.GetNumber() == 0:
			return nil, malformed("a stray without a number")
		case s.GetService() == "" || len(s.GetService()) > maxService:
			return nil, malformed("a service's name of %d bytes", len(s.GetService()))
		case len(s.GetFrame()) > MaxFrame:
			return nil, malformed("a frame of %d bytes, at most %d", len(s.GetFrame()), MaxFrame)
		}
		out = append(out, Ask{s.GetNumber(), s.GetService(), flow, s.GetFrame()})
	}
	return out, nil
}

// DecodeHoldings decodes the body of a message of control.KindHolder. Errors wrap ErrMalformed.
func DecodeHoldings(body []byte) ([]Holding, error) {
	var p handoverv1.Holdings
	if err := proto.Unmarshal(body, &p); err != nil {
		return nil, malformed("holdings: %v", err)
	}
	if len(p.GetHoldings()) > maxItems {
		return nil, malformed("%d holdings, at most %d", len(p.GetHoldings()), maxItems)
	}
	out := make([]Holding, 0, len(p.GetHoldings()))
	for _, h := range p.GetHoldings() {
		flow, err := decodeFlow(h.GetFlow())
		switch {
		case err != nil:
			return nil, err
		case h.GetNumber() == 0:
			return nil, malformed("a holding of no stray")
		case h.GetAsker() == "" || len(h.GetAsker()) > identity.MaxName:
			return nil, malformed("an asker's name of %d bytes", len(h.GetAsker()))
		}
		out = append(out, Holding{h.GetAsker(), h.GetNumber(), flow, h.GetGone()})
	}
	return out, nil
}

func encodeFlow(f dataplane.Flow) *handoverv1.Flow {
	return handover.EncodeFlow(handover.Flow{Local: f.VIP, Remote: f.User})
}

func decodeFlow(p *handoverv1.Flow) (dataplane.Flow, error) {
	f, err := handover.DecodeFlow(p)
	if err != nil {
		return dataplane.Flow{}, malformed("%v", err)
	}
	return dataplane.Flow{User: f.Remote, VIP: f.Local}, nil
}
