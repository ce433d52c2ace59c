package service

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// askTable gives a page of the ILM or of the FTN.
func (s *Service) askTable(r *tdpdv1.TableRequest, answer *tdpdv1.Answer) (func(time.Time) error, error) {
	var prefix netip.Prefix
	var after uint64
	var err error
	if r.GetFtn() {
		prefix, err = parsePrefix("after", r.GetAfter())
	} else if r.GetAfter() != "" {
		if after, err = strconv.ParseUint(r.GetAfter(), 10, 20); err != nil {
			err = fmt.Errorf("after %q: want a label", r.GetAfter())
		}
	}
	if err != nil {
		return nil, err
	}
	limit := most(r.GetLimit())
	return func(time.Time) error {
		t := &tdpdv1.Table{}
		if r.GetFtn() {
			for _, m := range s.tables.FTN(prefix, limit+1) {
				t.Entries = append(t.Entries, &tdpdv1.Entry{Fec: m.FEC.String(), Hops: nhlfes(m.NHLFEs)})
			}
		} else {
			for _, m := range s.tables.ILM(wire.Label(after), limit+1) {
				t.Entries = append(t.Entries, &tdpdv1.Entry{Label: label(m.Label), Fec: m.FEC.String(), Kind: m.Kind.String(), Hops: nhlfes(m.NHLFEs)})
			}
		}
		if len(t.Entries) > limit {
			t.Entries = t.Entries[:limit]
			last := t.Entries[limit-1]
			if t.Next = last.GetFec(); !r.GetFtn() {
				t.Next = strconv.FormatUint(uint64(last.GetLabel()), 10)
			}
		}
		answer.About = &tdpdv1.Answer_Table{Table: t}
		return nil
	}, nil
}

func nhlfes(list []forwarding.NHLFE) (out []*tdpdv1.NextHop) {
	for _, n := range list {
		out = append(out, &tdpdv1.NextHop{
			Operation: n.Operation.String(), Label: label(n.Label), Via: text(n.Address), Interface: n.Interface, Neighbor: name(n.Peer), Tunnel: text(n.Tunnel),
		})
	}
	return out
}
