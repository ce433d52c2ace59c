package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
)

func kept() alloc.Allocation {
	return alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 3}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"s1", "s2"},
		Owner: []uint16{0, 1}, Standby: []uint16{1, alloc.None},
	}
}

func TestShelfGivesBackWhatWasKept(t *testing.T) {
	s := Shelf{t.TempDir()}
	if none, err := s.Load(); err != nil || len(none) != 0 {
		t.Fatalf("%v, %v", none, err)
	}
	if err := s.Keep("web", kept()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "api.allocation"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := s.Load()
	if err == nil || !strings.Contains(err.Error(), "api") || len(all) != 1 || !all["web"].Same(kept()) || all["web"].Epoch != kept().Epoch {
		t.Errorf("%+v, error %v", all, err)
	}
}

func TestLossesAreKept(t *testing.T) {
	s := Shelf{t.TempDir()}
	losses := []Loss{{epoch.Epoch{Term: 1, Number: 2}, time.Date(2024, 5, 1, 12, 0, 0, 5, time.UTC)}, {epoch.Epoch{Term: 2, Number: 3}, time.Date(2024, 5, 1, 12, 0, 1, 0, time.UTC)}}
	for _, want := range [][]Loss{nil, losses, losses[:1], nil} {
		if err := s.KeepLosses("web", want); err != nil {
			t.Fatal(err)
		}
		if all, err := s.Losses(); err != nil || !slices.Equal(all["web"], want) {
			t.Errorf("%+v, error %v, want %+v", all, err, want)
		}
	}
	if err := errors.Join(s.KeepLosses("web", losses), os.WriteFile(filepath.Join(s.Dir, "api.losses"), []byte("x"), 0o600), os.WriteFile(filepath.Join(s.Dir, "long.losses"), make([]byte, lossesMax+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	all, err := s.Losses()
	if err == nil || !strings.Contains(err.Error(), "api") || !strings.Contains(err.Error(), "long") || len(all) != 1 || !slices.Equal(all["web"], losses) {
		t.Errorf("%+v, error %v", all, err)
	}
}

func FuzzDecodeAllocation(f *testing.F) {
	for _, a := range []alloc.Allocation{{}, kept()} {
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
		stored, err := proto.Marshal(alloc.ToProto("web", a))
		if err != nil {
			return // a name that is not UTF-8 never came from us
		}
		again, err := decodeAllocation(stored)
		if err != nil || again.Epoch != a.Epoch || !again.Same(a) {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}
