package kernel

import (
	"fmt"
	"strings"
)

// Failure is an entry that is not as it was wanted.
type Failure struct {
	Entry string // "label 100" or "prefix 192.0.2.0/24"
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

// err is nil where there are none.
func (f Failures) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
