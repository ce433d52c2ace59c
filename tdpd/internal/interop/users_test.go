package interop

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// vip is the address of the service whose users are bound.
var vip = netip.MustParseAddr("203.0.113.80")

// allUsers is a director's word that a server has all users of the VIP.
func allUsers(sequence, number uint64, server netip.Addr) steering.Binding {
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 2}, Servers: []string{"s"}, Addresses: []netip.Addr{server},
	}
	for range a.Cells() {
		a.Owner, a.Standby = append(a.Owner, 0), append(a.Standby, alloc.None)
	}
	return steering.Binding{
		Service: "web", VIPs: []netip.Addr{vip}, Sequence: sequence, Allocation: a, Lifetime: 2 * time.Minute, Hold: time.Minute,
	}
}

// ask asks a router at its status socket.
func (o *ours) ask(r *tdpdv1.Request) *tdpdv1.Answer {
	o.line.t.Helper()
	request, err := protojson.Marshal(r)
	if err != nil {
		o.line.t.Fatal(err)
	}
	c, err := net.Dial("unix", filepath.Join(o.role.Config.StateDir, "status.sock"))
	if err != nil {
		o.line.t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Write(request)
	if half, ok := c.(*net.UnixConn); ok && err == nil {
		err = half.CloseWrite()
	}
	answer := &tdpdv1.Answer{}
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(c); err == nil {
			err = protojson.Unmarshal(text, answer)
		}
	}
	if err != nil {
		o.line.t.Fatalf("ask %v: %v", o.line.id(o.at), err)
	}
	return answer
}

// bind says at a router what a director there would.
func (o *ours) bind(b steering.Binding) {
	o.line.t.Helper()
	b.Voucher = o.line.id(o.at)
	p, err := binding.ToProto(b)
	if err != nil {
		o.line.t.Fatal(err)
	}
	if answer := o.ask(&tdpdv1.Request{About: &tdpdv1.Request_Bind{Bind: &tdpdv1.BindRequest{Binding: p}}}); answer.GetBind() == nil {
		o.line.t.Fatalf("the binding is not taken: %v", answer)
	}
}

func (o *ours) status() *tdpdv1.Status {
	o.line.t.Helper()
	return o.ask(&tdpdv1.Request{About: &tdpdv1.Request_Status{Status: &tdpdv1.StatusRequest{}}}).GetStatus()
}

// steers is the number of the epoch that a router steers the service's users by; 0: it steers none.
func (o *ours) steers() uint64 {
	o.line.t.Helper()
	for _, s := range o.status().GetSteered() {
		if s.GetService() == "web" {
			return s.GetEpoch().GetNumber()
		}
	}
	return 0
}
