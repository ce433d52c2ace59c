package agent

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
)

func FuzzDecodeAllocation(f *testing.F) {
	for _, a := range []alloc.Allocation{{}, allocation(3, s1, s2)} {
		data, err := proto.Marshal(alloc.ToProto("web", a))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := decodeAllocation(data)
		if err != nil {
			return
		}
		kept, err := proto.Marshal(alloc.ToProto("web", a))
		if err != nil {
			return // a name that is not UTF-8 never came from us
		}
		again, err := decodeAllocation(kept)
		if err != nil || again.Epoch != a.Epoch || !again.Same(a) {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}
