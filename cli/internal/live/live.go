// Package live asks agents what live connections they have and what becomes of them, by proto alone.
package live

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// subject is where agents are asked, with the server's name.
const subject = "lbd.flows"

// pagesMost bounds the pages of one server.
const pagesMost = 10_000

// Bus is what is used of pool.Store.
type Bus interface {
	Request(ctx context.Context, subject string, request, answer proto.Message) error
}

// Flow is a connection at a server.
type Flow struct {
	Server  string         `json:"server"`
	Service string         `json:"service"`
	User    netip.AddrPort `json:"user"`
	VIP     netip.AddrPort `json:"vip"`
	State   string         `json:"state"`
	Owner   string         `json:"owner,omitempty"` // whose user it is, as the server knows it
	Until   string         `json:"until,omitempty"` // kept: the last epoch in which the user was the server's
	Peer    string         `json:"peer,omitempty"`  // moving: to this server; held: from it
	Step    string         `json:"step,omitempty"`
	StepMS  uint64         `json:"step_ms,omitempty"`
}

// States of connections.
const (
	Own    = "own"
	Kept   = "kept"
	Moving = "moving"
	Held   = "held"
)

// states has their numbers in requests.
var states = map[string][]handoverv1.FlowState{
	"all":  nil,
	Own:    {handoverv1.FlowState_FLOW_STATE_OWN},
	Kept:   {handoverv1.FlowState_FLOW_STATE_KEPT},
	Moving: {handoverv1.FlowState_FLOW_STATE_MOVING, handoverv1.FlowState_FLOW_STATE_HELD},
}

// StateNames are what Query.State may be.
func StateNames() []string { return []string{"all", Own, Kept, Moving} }

// Query says which connections are wanted.
type Query struct {
	Service string // empty: all
	User    string // address, address:port or prefix; empty: all
	State   string // all, own, kept or moving
	Limit   int    // of one server; 0: all
}

// List gives connections of a server, and how many there are.
func List(ctx context.Context, b Bus, server string, q Query) (flows []Flow, all uint64, err error) {
	wanted, ok := states[q.State]
	if !ok {
		return nil, 0, fmt.Errorf("state %q: want %s", q.State, strings.Join(StateNames(), ", "))
	}
	request := &handoverv1.ListRequest{Service: q.Service, User: q.User, States: wanted}
	for range pagesMost {
		answer, err := ask(ctx, b, server, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_List{List: request}})
		if err != nil {
			return nil, 0, err
		}
		page := answer.GetList()
		if all == 0 {
			all = page.GetAll()
		}
		for _, p := range page.GetFlows() {
			f, err := flowOf(server, p)
			if err != nil {
				return nil, 0, err
			}
			flows = append(flows, f)
		}
		switch {
		case page.GetNext() == "" || q.Limit > 0 && len(flows) >= q.Limit:
			return flows, all, nil
		case page.GetNext() == request.GetAfter():
			return nil, 0, fmt.Errorf("server %s gives the same page again and again", server)
		}
		request.After = page.GetNext()
	}
	return nil, 0, fmt.Errorf("server %s finds no end: more than %d pages", server, pagesMost)
}

// Status is what a server says of its connections all in all.
func Status(ctx context.Context, b Bus, server string) (*handoverv1.FlowsStatus, error) {
	answer, err := ask(ctx, b, server, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Status{Status: &handoverv1.StatusRequest{}}})
	return answer.GetStatus(), err
}

// Cost is what an allocation of a service would move from a server.
func Cost(ctx context.Context, b Bus, server, service string, next alloc.Allocation) (*handoverv1.Cost, error) {
	request := &handoverv1.CostRequest{Next: alloc.ToProto(service, next)}
	answer, err := ask(ctx, b, server, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Cost{Cost: request}})
	return answer.GetCost(), err
}

// Fetch has a server ask the others for connections of its users: for these, or for all there are.
func Fetch(ctx context.Context, b Bus, server, service string, flows ...Flow) error {
	request := &handoverv1.FetchRequest{Service: service}
	for _, f := range flows {
		request.Flows = append(request.Flows, &handoverv1.Flow{Local: encodeEnd(f.VIP), Remote: encodeEnd(f.User)})
	}
	_, err := ask(ctx, b, server, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Fetch{Fetch: request}})
	return err
}

// Cancel has a server stop what it is giving away of a service's connections. It returns how many stay for that.
func Cancel(ctx context.Context, b Bus, server, service string) (stayed uint64, err error) {
	request := &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Cancel{Cancel: &handoverv1.CancelRequest{Service: service}}}
	answer, err := ask(ctx, b, server, request)
	return answer.GetCancel().GetStayed(), err
}

// ErrSilent says that an agent does not answer.
var ErrSilent = errors.New("its agent does not answer: it is not on the bus, or older than this command")

func ask(ctx context.Context, b Bus, server string, request *handoverv1.FlowsRequest) (*handoverv1.FlowsAnswer, error) {
	answer := &handoverv1.FlowsAnswer{}
	err := b.Request(ctx, bus.Of(subject, server), request, answer)
	if errors.Is(err, bus.ErrNotFound) {
		err = ErrSilent
	}
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", server, err)
	}
	return answer, nil
}

func flowOf(server string, p *handoverv1.LiveFlow) (Flow, error) {
	user, ok := decodeEnd(p.GetFlow().GetRemote())
	vip, both := decodeEnd(p.GetFlow().GetLocal())
	if !ok || !both {
		return Flow{}, fmt.Errorf("server %s tells of a connection without two ends", server)
	}
	f := Flow{
		Server: server, Service: p.GetService(), User: user, VIP: vip, Owner: p.GetOwner(), Peer: p.GetPeer(), Step: p.GetStep(), StepMS: p.GetStepMs(),
		State: strings.ToLower(strings.TrimPrefix(p.GetState().String(), "FLOW_STATE_")),
	}
	if until := alloc.EpochFromProto(p.GetUntil()); until.Number != 0 {
		f.Until = until.String()
	}
	return f, nil
}

func encodeEnd(a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port())
}

func decodeEnd(b []byte) (netip.AddrPort, bool) {
	if len(b) != 4+2 && len(b) != 16+2 {
		return netip.AddrPort{}, false
	}
	n := len(b) - 2
	addr, ok := netip.AddrFromSlice(b[:n])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[n:])), ok
}

// Servers are those of a service that can be asked, or of all services where its name is empty.
func Servers(snap *pool.Snapshot, service string) ([]string, error) {
	var names []string
	if service != "" {
		names = []string{service}
	}
	services, err := snap.Select(names...)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, svc := range services {
		for _, m := range svc.Servers {
			if m.Alive() && !slices.Contains(out, m.Name) {
				out = append(out, m.Name)
			}
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		return nil, errors.New("no server is registered that could be asked: its lbd agent does that, with [bus] urls")
	}
	return out, nil
}
