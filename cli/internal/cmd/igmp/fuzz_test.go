package igmp

import (
	"encoding/json"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

// FuzzStatus shows what a router says of itself, on the bus or on its socket.
func FuzzStatus(f *testing.F) {
	st := &igmpdv1.Status{
		Router: "r1", Admitted: 3, Refused: map[string]uint64{"unsigned": 2},
		Groups:       []*igmpdv1.Group{{Group: "239.80.80.80", Private: true, Members: 1, Ports: []string{"down"}}},
		Joins:        []*igmpdv1.Join{{Group: "239.80.80.80", Requester: "10.3.1.10", Permit: []string{"0.0.0.0/0"}, ExpiresMs: 2500}},
		LastRefusals: []*igmpdv1.Refusal{{Reason: "unsigned", Source: "10.3.66.10"}},
	}
	onBus, err := proto.Marshal(st)
	if err != nil {
		f.Fatal(err)
	}
	onSocket, err := json.Marshal(st)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(onBus)
	f.Add(onSocket)
	f.Add([]byte(`{"joins":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var all []*igmpdv1.Status
		if st, err := decodeStatus(data); err == nil {
			all = append(all, st)
		}
		if st := (&igmpdv1.Status{}); proto.Unmarshal(data, st) == nil {
			all = append(all, st)
		}
		for _, show := range []func([]*igmpdv1.Status) (any, cmdutil.Table){showGroups, showJoins, showRefusals} {
			value, table := show(all)
			for _, output := range []string{"table", "json"} {
				if err := (&cmdutil.Factory{Out: io.Discard, Output: output}).Print(value, table); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
