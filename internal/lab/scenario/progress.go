package scenario

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
)

// Progress tells a person what goes on: live in a terminal, plain lines elsewhere.
type Progress struct {
	mu    sync.Mutex
	out   io.Writer
	live  bool // the last line may be rewritten
	phase string
	line  bool // a live line stands on the screen
	last  time.Duration
}

// NewProgress writes to out; live says that it is a terminal.
func NewProgress(out io.Writer, live bool) *Progress { return &Progress{out: out, live: live} }

// Phase begins a phase.
func (p *Progress) Phase(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = name
	p.print("== %s", name)
}

// Note tells something that happened.
func (p *Progress) Note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print("   "+format, args...)
}

// Check tells how a check went.
func (p *Progress) Check(c report.Check) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mark := "ok  "
	if !c.OK {
		mark = "FAIL"
	}
	p.print("   %s %s: %s", mark, c.Name, c.Detail)
}

// Tick tells how far the users are; plain output has one line in five seconds.
func (p *Progress) Tick(at time.Duration, requests, unanswered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("   %5.1f s  %s: %d requests, %d unanswered", at.Seconds(), p.phase, requests, unanswered)
	if p.live {
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
		p.line = true
		return
	}
	if at-p.last >= 5*time.Second {
		p.last = at
		fmt.Fprintln(p.out, text)
	}
}

// print writes a whole line, in place of a live one. The caller holds mu.
func (p *Progress) print(format string, args ...any) {
	if p.line {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.line = false
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}
