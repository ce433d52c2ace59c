// Package epoch numbers the allocations of a service.
package epoch

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Epoch is (term, number). The term is the fencing number of the leader that made the allocation, the number counts the
// allocations of a service. The zero Epoch is before every other one.
type Epoch struct {
	Term   uint64
	Number uint64
}

// Compare orders epochs by term, then by number: -1, 0 or +1.
func (e Epoch) Compare(o Epoch) int {
	if c := cmp.Compare(e.Term, o.Term); c != 0 {
		return c
	}
	return cmp.Compare(e.Number, o.Number)
}

// Less reports whether e is before o.
func (e Epoch) Less(o Epoch) bool { return e.Compare(o) < 0 }

// String returns "term.number".
func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e.Term, e.Number) }

// Parse reads what String writes.
func Parse(s string) (Epoch, error) {
	term, number, ok := strings.Cut(s, ".")
	if !ok {
		return Epoch{}, fmt.Errorf("epoch %q: want term.number, such as 3.17", s)
	}
	t, err := strconv.ParseUint(term, 10, 64)
	if err != nil {
		return Epoch{}, fmt.Errorf("epoch %q: term: %w", s, err)
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return Epoch{}, fmt.Errorf("epoch %q: number: %w", s, err)
	}
	return Epoch{Term: t, Number: n}, nil
}
