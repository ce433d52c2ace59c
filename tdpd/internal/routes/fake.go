package routes

import "context"

// Fake is a Watcher whose Changes are told by Send.
type Fake struct{ changes chan Change }

// NewFake returns a Fake that has told nothing yet.
func NewFake() *Fake { return &Fake{make(chan Change)} }

// Send hands a change to the reader, and waits until he has it.
func (f *Fake) Send(c Change) { f.changes <- c }

// Changes implements Watcher.
func (f *Fake) Changes() <-chan Change { return f.changes }

// Run waits for ctx to end.
func (f *Fake) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

var _ Watcher = (*Fake)(nil)
