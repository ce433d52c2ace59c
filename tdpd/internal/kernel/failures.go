package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Failure is an entry that is not as it was wanted.
type Failure struct {
	Entry string // "label 100" or "prefix 192.0.2.0/24"
	Label uint32 // 0: of a prefix
	Err   error
}

// Failures are all of a Set or an Update. The other entries are as they were wanted.
type Failures []Failure

const failuresShown = 10

// Error names some of the entries.
func (f Failures) Error() string {
	var lines []string
	for _, e := range f[:min(len(f), failuresShown)] {
		lines = append(lines, fmt.Sprintf("%s: %v", e.Entry, e.Err))
	}
	if more := len(f) - failuresShown; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more entries", more))
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors of all entries.
func (f Failures) Unwrap() []error {
	errs := make([]error, len(f))
	for i := range f {
		errs[i] = f[i].Err
	}
	return errs
}

// LabelsTaken says whether one of the failures is that somebody else has an entry for the label: Others tells which ones he has.
func LabelsTaken(err error) bool {
	var all Failures
	return errors.As(err, &all) && slices.ContainsFunc(all, func(f Failure) bool { return f.Label != 0 && errors.Is(f.Err, fs.ErrExist) })
}

// err is nil where there are none.
func (f Failures) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
