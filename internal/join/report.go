package join

import (
	"errors"
	"fmt"
	"slices"

	"github.com/manycast/manycast/internal/igmp"
)

type recordKey struct {
	kind  igmp.RecordType
	group [4]byte
}

func (j Join) recordKey() recordKey { return recordKey{j.Record().Type, j.Group.As4()} }

// Report builds the report that carries the joins: one record without sources for each group and kind, leaves first, so
// that a snooping switch which sees a leave and a join of a group ends with the group joined; and one TLV per join.
func Report(signed ...Signed) igmp.Report {
	var r igmp.Report
	seen := make(map[recordKey]bool, len(signed))
	for _, leaves := range [2]bool{true, false} {
		for _, s := range signed {
			if k := s.recordKey(); s.Leave == leaves && !seen[k] {
				seen[k] = true
				r.Records = append(r.Records, s.Record())
			}
		}
	}
	for _, s := range signed {
		r.Extensions = append(r.Extensions, igmp.Extension{Type: igmp.ExtensionExperiment, Value: s.Raw})
	}
	return r
}

// Batch packs the joins, in their order, into as few reports as fit packets of mtu bytes. A join that fits none is left
// out: the error, which wraps ErrTooLarge, names it, and the reports of all others are good.
func Batch(signed []Signed, mtu int) ([][]byte, error) {
	var reports [][]byte
	var batch []Signed
	var failed []error
	flush := func() {
		if len(batch) == 0 {
			return
		}
		b, err := igmp.Marshal(Report(batch...))
		if err != nil {
			failed = append(failed, fmt.Errorf("report of %d joins: %w", len(batch), err))
		} else {
			reports = append(reports, b)
		}
		batch = nil
	}
	room := min(mtu-ipHeaderBytes, igmp.MaxBytes)
	size := igmp.ReportBytes
	seen := make(map[recordKey]bool)
	for _, s := range signed {
		if alone := igmp.ReportBytes + s.reportBytes(); alone > room {
			failed = append(failed, fmt.Errorf("join of %v to %v: %w: its report has %d bytes, %d fit", s.Requester, s.Group, ErrTooLarge, alone, room))
			continue
		}
		need := s.reportBytes()
		if seen[s.recordKey()] {
			need -= igmp.RecordBytes
		}
		if size+need > room {
			flush()
			clear(seen)
			size, need = igmp.ReportBytes, s.reportBytes()
		}
		batch = append(batch, s)
		seen[s.recordKey()] = true
		size += need
	}
	flush()
	return reports, errors.Join(failed...)
}

// reportBytes is what the join adds to a report, its record included.
func (s Signed) reportBytes() int { return igmp.RecordBytes + igmp.ExtensionBytes(len(s.Raw)) }

// IsJoin reports whether an extension is an extended join of any version, well-formed or not.
func IsJoin(e igmp.Extension) bool {
	return e.Type == igmp.ExtensionExperiment && len(e.Value) >= len(magic) && string(e.Value[:len(magic)]) == magic
}

// FromReport returns the extended joins of a report in their order. A join is taken only if the report has the record
// that goes with it. Malformed ones are left out and the first of them is the error, which wraps ErrMalformed or
// ErrVersion; the joins returned beside it are good. Foreign extensions are ignored.
func FromReport(r igmp.Report) ([]Signed, error) {
	var joins []Signed
	var records recordSet
	var first error
	failed := 0
	for i, e := range r.Extensions {
		if !IsJoin(e) {
			continue
		}
		s, err := Decode(e.Value)
		if err == nil && !records.has(r.Records, s.recordKey()) {
			err = fmt.Errorf("%w: no record %v of %v without sources", ErrMalformed, s.Record().Type, s.Group)
		}
		if err == nil {
			joins = append(joins, s)
			continue
		}
		if failed++; first == nil {
			first = fmt.Errorf("extension %d: %w", i+1, err)
		}
	}
	if first == nil && r.ExtensionErr != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, r.ExtensionErr)
	}
	if failed > 1 {
		first = fmt.Errorf("%w (and %d more of the report)", first, failed-1)
	}
	return joins, first
}

// recordSet finds a report's records without sources: few by looking at each, many by a map that is made at the first look.
type recordSet map[recordKey]bool

const fewRecords = 8

func (set *recordSet) has(records []igmp.Record, k recordKey) bool {
	if len(records) <= fewRecords {
		return slices.ContainsFunc(records, func(r igmp.Record) bool { return plain(r) && keyOf(r) == k })
	}
	if *set == nil {
		*set = make(recordSet)
		for _, r := range records {
			if plain(r) {
				(*set)[keyOf(r)] = true
			}
		}
	}
	return (*set)[k]
}

func plain(r igmp.Record) bool { return len(r.Sources) == 0 && r.Group.Is4() }

func keyOf(r igmp.Record) recordKey { return recordKey{r.Type, r.Group.As4()} }
