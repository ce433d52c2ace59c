package daemon

import (
	"context"
	"fmt"
	"strings"
)

// Beneath makes one Task of two: base begins before above and ends after it, as something that above uses until its end.
func Beneath(base, above Task) Task { return &stack{base, above} }

type stack struct{ base, above Task }

// String names the task that is in sight.
func (s *stack) String() string { return s.above.String() }

// Ready is above's.
func (s *stack) Ready() <-chan struct{} { return s.above.Ready() }

// Turns are those of both.
func (s *stack) Turns() (turns []chan<- struct{}) {
	for _, t := range []Task{s.base, s.above} {
		if l, ok := t.(Looper); ok {
			turns = append(turns, l.Turns()...)
		}
	}
	return turns
}

// State is what both have to say.
func (s *stack) State() string {
	var all []string
	for _, t := range []Task{s.base, s.above} {
		if state, ok := t.(Stater); ok && state.State() != "" {
			all = append(all, state.State())
		}
	}
	return strings.Join(all, "; ")
}

// Run ends with the first error of the two.
func (s *stack) Run(ctx context.Context) error {
	below, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	failed := make(chan error, 1)
	go func() {
		err := s.base.Run(below)
		fail()
		failed <- err
	}()
	err := s.above.Run(ctx)
	end()
	if baseErr := <-failed; baseErr != nil {
		return fmt.Errorf("%s: %w", s.base, baseErr)
	}
	return err
}
