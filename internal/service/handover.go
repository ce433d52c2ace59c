package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// Strategy is what becomes of a live connection whose user goes to another server.
type Strategy string

// Strategies.
const (
	Reset    Strategy = "reset"    // it is closed, and the user opens a new one (Fig 12)
	Forward  Strategy = "forward"  // the new server sends its packets on to the old one (Fig 14)
	Transfer Strategy = "transfer" // the new server takes it over (Fig 15)
	Pin      Strategy = "pin"      // the network sends its packets to the old server, by a path of their own (Fig 16)
)

// Closing is how a server ends a connection that nothing keeps.
type Closing string

// Closings.
const (
	CloseReset   Closing = "reset"   // RST, at once
	CloseOrderly Closing = "orderly" // FIN behind what is sent; RST where the application cannot be had to
)

// Handover says how live connections are handed over when their users move.
type Handover struct {
	Strategies []Strategy    // the first that can be had for a connection is its own; what is left is reset
	Close      Closing       // of what is reset
	Break      time.Duration // with Forward and Pin: the old server closes at the first break point after so long; 0: never
	Deadline   time.Duration // with Transfer: what has not moved by then, since the commit, goes by the next strategy; 100 ms to 1 min
}

// DefaultHandover resets.
func DefaultHandover() Handover {
	return Handover{Strategies: []Strategy{Reset}, Close: CloseReset}
}

// defaultDeadline is of a transfer.
const defaultDeadline = 2 * time.Second

// Bounds of a Handover's times.
const (
	minDeadline = 100 * time.Millisecond
	maxDeadline = time.Minute
	maxBreak    = 7 * 24 * time.Hour
)

// Has reports whether the strategy is one of them.
func (h Handover) Has(s Strategy) bool { return slices.Contains(h.Strategies, s) }

// Keeps reports whether moved users' connections may go on at their old server.
func (h Handover) Keeps() bool { return h.Has(Forward) || h.Has(Transfer) || h.Has(Pin) }

// String says it in words: "transfer, forward; deadline 2s".
func (h Handover) String() string {
	var words []string
	for _, s := range h.Strategies {
		words = append(words, string(s))
	}
	text := strings.Join(words, ", ")
	if h.Has(Transfer) {
		text += "; deadline " + h.Deadline.String()
	}
	if h.Break > 0 {
		text += "; break after " + h.Break.String()
	}
	if h.Close == CloseOrderly {
		text += "; closes orderly"
	}
	return text
}

// withDefaults fills in what is not said.
func (h Handover) withDefaults() Handover {
	d := DefaultHandover()
	if len(h.Strategies) == 0 {
		h.Strategies = d.Strategies
	}
	if h.Close == "" {
		h.Close = d.Close
	}
	if h.Deadline == 0 && h.Has(Transfer) {
		h.Deadline = defaultDeadline
	}
	return h
}

func (s Service) checkHandover() error {
	h := s.Handover
	for i, strategy := range h.Strategies {
		switch {
		case strategy != Reset && strategy != Forward && strategy != Transfer && strategy != Pin:
			return fmt.Errorf("handover %q: want reset, forward, transfer or pin", strategy)
		case slices.Contains(h.Strategies[:i], strategy):
			return fmt.Errorf("handover %s is there twice", strategy)
		case strategy == Reset && i < len(h.Strategies)-1:
			return errors.New("handover reset: nothing is left after it; put it last, or leave it out")
		}
	}
	switch {
	case len(h.Strategies) == 0:
		return errors.New("handover: want reset, forward, transfer or pin")
	case h.Close != CloseReset && h.Close != CloseOrderly:
		return fmt.Errorf("handover: close %q: want reset or orderly", h.Close)
	case h.Break < 0 || h.Break > maxBreak:
		return fmt.Errorf("handover: break %v: want 0 (never) to %v", h.Break, maxBreak)
	case h.Break > 0 && !h.Has(Forward) && !h.Has(Pin):
		return errors.New("handover: break goes with forward and pin, where the old server has connections to close")
	case h.Deadline != 0 && !h.Has(Transfer):
		return errors.New("handover: deadline goes with transfer")
	case h.Has(Transfer) && (h.Deadline < minDeadline || h.Deadline > maxDeadline):
		return fmt.Errorf("handover: deadline %v: want %v to %v", h.Deadline, minDeadline, maxDeadline)
	case s.Static() && h.Keeps():
		return fmt.Errorf("handover %s with portions of servers: it takes a leader, which knows who had whom before", h.Strategies[0])
	}
	return nil
}

// handoverDocument is a Handover in YAML and JSON: a strategy, a list of them, or a mapping with more.
type handoverDocument struct {
	Strategy strategies `yaml:"strategy,flow" json:"strategy"`
	Close    string     `yaml:"close,omitempty" json:"close,omitempty"`
	Break    string     `yaml:"break,omitempty" json:"break,omitempty"`
	Deadline string     `yaml:"deadline,omitempty" json:"deadline,omitempty"`
}

// strategies are one or a list.
type strategies []string

// UnmarshalYAML reads either.
func (s *strategies) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		var one string
		err := node.Decode(&one)
		*s = strategies{one}
		return err
	}
	return node.Decode((*[]string)(s))
}

// UnmarshalYAML reads what handoverDocument says. Keys that do not exist are refused here, for a node knows nothing of its decoder.
func (d *handoverDocument) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return node.Decode(&d.Strategy)
	}
	for i := 0; i < len(node.Content); i += 2 {
		switch key := node.Content[i]; key.Value {
		case "strategy", "close", "break", "deadline":
		default:
			return fmt.Errorf("line %d: handover has no key %s: want strategy, close, break or deadline", key.Line, key.Value)
		}
	}
	type plain handoverDocument
	return node.Decode((*plain)(d))
}

func (d *handoverDocument) handover() (Handover, error) {
	if d == nil {
		return DefaultHandover(), nil
	}
	h := Handover{Close: Closing(d.Close)}
	for _, s := range d.Strategy {
		h.Strategies = append(h.Strategies, Strategy(s))
	}
	for _, f := range []struct {
		name, text string
		to         *time.Duration
	}{{"break", d.Break, &h.Break}, {"deadline", d.Deadline, &h.Deadline}} {
		if f.text == "" {
			continue
		}
		t, err := time.ParseDuration(f.text)
		if err != nil {
			return h, fmt.Errorf("handover: %s %q: want a time such as 2s", f.name, f.text)
		}
		*f.to = t.Truncate(time.Millisecond)
	}
	return h.withDefaults(), nil
}

// handoverToDocument leaves out what says nothing.
func handoverToDocument(h Handover) *handoverDocument {
	var d handoverDocument
	for _, s := range h.Strategies {
		d.Strategy = append(d.Strategy, string(s))
	}
	bare := Handover{Strategies: h.Strategies}.withDefaults()
	if h.Close != bare.Close {
		d.Close = string(h.Close)
	}
	if h.Break != 0 {
		d.Break = h.Break.String()
	}
	if h.Deadline != bare.Deadline {
		d.Deadline = h.Deadline.String()
	}
	return &d
}

// brief is the document as short as it can be said.
func (d handoverDocument) brief() any {
	type plain handoverDocument
	switch {
	case d.Close != "" || d.Break != "" || d.Deadline != "":
		return plain(d)
	case len(d.Strategy) == 1:
		return d.Strategy[0]
	}
	return d.Strategy
}

// MarshalYAML writes what UnmarshalYAML reads.
func (d handoverDocument) MarshalYAML() (any, error) {
	var node yaml.Node
	err := node.Encode(d.brief())
	node.Style |= yaml.FlowStyle
	return &node, err
}

// MarshalJSON writes the same.
func (d handoverDocument) MarshalJSON() ([]byte, error) { return json.Marshal(d.brief()) }

func handoverToProto(h Handover) *servicev1.Handover {
	p := &servicev1.Handover{Close: string(h.Close), BreakMs: uint64(h.Break.Milliseconds()), DeadlineMs: uint64(h.Deadline.Milliseconds())}
	for _, s := range h.Strategies {
		p.Strategies = append(p.Strategies, string(s))
	}
	return p
}

// handoverFromProto takes what a release before said in a word.
func handoverFromProto(p *servicev1.Handover) (Handover, error) {
	const most = uint64(maxBreak / time.Millisecond)
	if p.GetBreakMs() > most || p.GetDeadlineMs() > most {
		return Handover{}, fmt.Errorf("handover: break of %d ms, deadline of %d ms", p.GetBreakMs(), p.GetDeadlineMs())
	}
	h := Handover{
		Close: Closing(p.GetClose()),
		Break: time.Duration(p.GetBreakMs()) * time.Millisecond, Deadline: time.Duration(p.GetDeadlineMs()) * time.Millisecond,
	}
	for _, s := range p.GetStrategies() {
		h.Strategies = append(h.Strategies, Strategy(s))
	}
	return h.withDefaults(), nil
}
