package tag

import (
	"context"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/routers"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// same is a router that says the same to whatever it is asked.
type same struct{ *tdpdv1.Answer }

func (s same) All(context.Context) ([]*tdpdv1.Answer, error) { return []*tdpdv1.Answer{s.Answer}, nil }
func (s same) One(context.Context, string, *tdpdv1.Request) (*tdpdv1.Answer, error) {
	return s.Answer, nil
}
func (same) Close() {}

// FuzzAnswer shows what a router says, on the bus or on its socket.
func FuzzAnswer(f *testing.F) {
	label := uint32(17)
	hop := &tdpdv1.NextHop{Operation: "swap", Label: &label, Neighbor: "1.1.1.1:0"}
	for _, a := range []*tdpdv1.Answer{
		{About: &tdpdv1.Answer_Status{Status: &tdpdv1.Status{RouterId: "1.1.1.1", Neighbors: []*tdpdv1.Neighbor{{Id: "2.2.2.2:0", StateMs: -1, Agreed: &tdpdv1.Agreed{}}}}}},
		{About: &tdpdv1.Answer_Fecs{Fecs: &tdpdv1.FECs{Next: "x", Fecs: []*tdpdv1.FEC{{Prefix: "10.0.0.0/8", Remote: []*tdpdv1.Binding{{}, {}}, Hops: []*tdpdv1.NextHop{hop}}}}}},
		{About: &tdpdv1.Answer_Table{Table: &tdpdv1.Table{Entries: []*tdpdv1.Entry{{Label: &label}, {Hops: []*tdpdv1.NextHop{hop}}}}}},
		{About: &tdpdv1.Answer_Step{Step: &tdpdv1.Step{Action: "swap", Hops: []*tdpdv1.NextHop{hop}}}},
	} {
		data, err := proto.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"router": "r1", "status": {"neighbors": [{"id": "1.1.1.1:0"}]}}`))
	f.Add([]byte(`{"error": "none"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var all []*tdpdv1.Answer
		if a, err := routers.Decode("socket", data); err == nil {
			all = append(all, a)
		}
		if a := (&tdpdv1.Answer{}); proto.Unmarshal(data, a) == nil {
			all = append(all, a)
		}
		for _, a := range all {
			show(t, same{a}, []*tdpdv1.Answer{a})
		}
	})
}

func show(t *testing.T, w way, all []*tdpdv1.Answer) {
	ctx := context.Background()
	of := frr{}
	trace := func(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
		tracer := newTracer(w, "10.0.0.1", all)
		rows, err := tracer.trace(ctx, "")
		return rows, tracer.table(rows), err
	}
	trees := func(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
		rows, err := fecs(ctx, w, all, &tdpdv1.FECsRequest{})
		fecTable(rows)
		return rows, treeTable(rows), err
	}
	for _, f := range []func(context.Context, way, []*tdpdv1.Answer) (any, cmdutil.Table, error){
		showNeighbors, showTable, of.neighbors, of.bindings, of.discovery, of.interfaces, trace, trees,
	} {
		value, table, err := f(ctx, w, all)
		if err != nil {
			continue
		}
		for _, output := range []string{"table", "json"} {
			if err := (&cmdutil.Factory{Out: io.Discard, Output: output}).Print(value, table); err != nil {
				t.Error(err)
			}
		}
	}
}
