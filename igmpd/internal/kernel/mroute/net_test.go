package mroute_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/sys/unix"
)

// router is a node with three interfaces, and their indexes.
func router(t *testing.T) (*testnet.Node, [3]int) {
	n := testnet.New(t)
	r, peer := n.Node("r"), n.Node("peer")
	var index [3]int
	for i, name := range []string{"e0", "e1", "e2"} {
		n.Link(r, name, "", peer, name, "")
		if err := r.Do(func() error {
			link, err := net.InterfaceByName(name)
			if err == nil {
				index[i] = link.Index
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return r, index
}

func TestNetTableReadsBackAsWritten(t *testing.T) {
	r, index := router(t)
	group, source := netip.MustParseAddr("239.1.1.1"), netip.MustParseAddr("10.0.1.5")
	for _, number := range []uint32{253, 10007} {
		var s *mroute.Socket
		var found map[uint32]mroute.Table
		if err := r.Do(func() (err error) {
			if s, err = mroute.Open(number); err != nil {
				return err
			}
			return s.SameNamespace()
		}); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		want := mroute.Table{VIFs: map[int]int{0: index[0], 5: index[1], 31: index[2]}, Entries: []mroute.Entry{
			{Group: group, Parent: 0, Out: mroute.VIF(0) | mroute.VIF(31)},
			{Group: group, Parent: 5, Out: mroute.VIF(5) | mroute.VIF(31)},
			{Source: source, Group: group, Parent: 31, Out: mroute.VIF(0)},
			{Source: netip.MustParseAddr("10.0.1.6"), Group: group, Parent: 0},
		}}
		errs := []error{s.Quiet(), s.ReportWrongInterface(), s.Put(mroute.Entry{Group: group, Parent: 0, Out: 0})}
		for vif, ifindex := range want.VIFs {
			errs = append(errs, s.AddVIF(vif, ifindex))
		}
		for _, e := range want.Entries {
			errs = append(errs, s.Put(e), s.Put(e)) // putting again changes nothing
		}
		errs = append(errs, r.Do(func() (err error) {
			found, err = mroute.Dump()
			return err
		}))
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		got := found[number]
		slices.SortFunc(got.Entries, func(a, b mroute.Entry) int {
			return strings.Compare(a.String(), b.String())
		})
		slices.SortFunc(want.Entries, func(a, b mroute.Entry) int {
			return strings.Compare(a.String(), b.String())
		})
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("table %d: %s", number, d)
		}
		if err := s.Delete(want.Entries[0]); err != nil {
			t.Error(err)
		}
		if err := s.Delete(want.Entries[0]); !errors.Is(err, unix.ENOENT) {
			t.Errorf("second delete: %v", err)
		}
		if err := s.Flush(); err != nil {
			t.Error(err)
		}
	}
}

func TestNetTableOfAnotherProcess(t *testing.T) {
	r, _ := router(t)
	err := r.Do(func() error {
		s, err := mroute.Open(77)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = mroute.Open(77)
		return err
	})
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "mroute.test") {
		t.Errorf("the error does not name this process: %v", err)
	}
}

func TestNetSocketOfAnotherNamespace(t *testing.T) {
	r, _ := router(t)
	var s *mroute.Socket
	if err := r.Do(func() (err error) {
		s, err = mroute.Open(77)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SameNamespace(); err == nil {
		t.Error("taken for a socket of this namespace")
	}
}
