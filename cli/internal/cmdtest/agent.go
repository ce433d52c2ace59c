package cmdtest

import (
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Agent answers on the bus what live connections a server has, as its agent does, until the test ends.
func (b *Bus) Agent(name string, answer func(*handoverv1.FlowsRequest) *handoverv1.FlowsAnswer) {
	b.t.Helper()
	conn, err := bus.Connect(bus.Config{
		URLs: []string{b.url}, Credentials: bus.CredentialsPath(b.dir, "agent"), Name: name, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(conn.Close)
	if err := conn.WaitConnected(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	stop, err := conn.Handle(bus.Of("lbd.flows", name), func(m bus.Msg) (proto.Message, error) {
		r := &handoverv1.FlowsRequest{}
		if err := proto.Unmarshal(m.Data, r); err != nil {
			return nil, err
		}
		return answer(r), nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(stop)
}
