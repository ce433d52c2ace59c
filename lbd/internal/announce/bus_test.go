package announce

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
)

func messages(t testing.TB) []Message {
	a, _, err := alloc.Next(alloc.Allocation{}, alloc.Want{
		Epoch: epoch.Epoch{Term: 3, Number: 8}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 3},
		Servers: []alloc.Server{{Name: "s1", Weight: 1, Alive: true}, {Name: "s2", Weight: 1, Alive: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return []Message{Announce{"web", a, a}, Announce{"web", a, alloc.Allocation{}}, Ceased{"web", a.Epoch, "s1"}, Prepared{"web", a.Epoch, "s1"}, Commit{"web", a}, Done{"web", a.Epoch, "s2", 17}}
}

func TestMessagesRoundTrip(t *testing.T) {
	for _, want := range messages(t) {
		subject, p := encode(want)
		data, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(subject, data)
		if err != nil {
			t.Errorf("%T: %v", want, err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%T: %s", want, d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	subjects := []string{subjectAnnounce, subjectPrepared, subjectCommit, subjectCeased, subjectDone, "lbd.other"}
	for i, m := range messages(f) {
		_, p := encode(m)
		data, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, data)
	}
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		m, err := decode(subjects[uint(i)%uint(len(subjects))], data)
		if err != nil {
			return
		}
		if a, ok := m.(Commit); ok && !a.Allocation.Zero() && a.Allocation.Check() != nil {
			t.Fatalf("a bad allocation came through: %+v", a)
		}
	})
}
