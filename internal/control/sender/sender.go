// Package sender is what a member says on the control channel, and when: statuses and messages in, frames out, no sockets, no
// clocks. It is not for use by several goroutines at a time.
package sender

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/wire"
	controlv1 "github.com/manycast/manycast/proto/control/v1"
)

// Defaults of Config.
const (
	DefaultHeartbeat = 50 * time.Millisecond
	DefaultFrameMax  = 1200
	DefaultChain     = 8192 // heartbeats: seven minutes of them, 128 KiB
)

// When things are said.
const (
	reportEvery  = time.Second
	reportEager  = 100 * time.Millisecond // in the first second
	repeatAfter  = 15 * time.Millisecond  // every message is sent twice
	metSoonest   = 50 * time.Millisecond  // a new peer hears of us after that, and a random time of as much again
	metJitter    = 100 * time.Millisecond
	metSpacing   = 200 * time.Millisecond
	burst        = 64 // frames of messages at a time
	burstSpacing = time.Millisecond
	maxQueued    = 16 << 20 // bytes of messages that wait
)

// ErrFull says that too much waits to be sent.
var ErrFull = errors.New("too many messages wait for the control channel")

// ErrNoKey says that the control group's key is not there.
var ErrNoKey = errors.New("no key of the control group")

// Config says who speaks. Zero fields take the defaults.
type Config struct {
	Identity  identity.Identity
	Group     netip.Addr
	Boot      uint64 // another one at each start
	Started   time.Time
	Heartbeat time.Duration
	FrameMax  int // bytes of UDP payload
	Chain     int // heartbeats per chain, more than 2 × wire.MaxStep
	Random    io.Reader
}

// Sender is the state.
type Sender struct {
	cfg    Config
	key    *wire.Key
	status control.Status
	pause  time.Duration
	number uint64 // of the last message
	index  uint64 // of the last heartbeat
	chain  *wire.Chain
	next   *wire.Chain // told of in good time before it is used
	beat   time.Time   // when the next heartbeat is due
	report time.Time   // and the next report
	said   time.Time   // the last report
	queue  []queued
	bytes  int
}

// queued is a message on its way out.
type queued struct {
	due    time.Time
	frames [][]byte
	again  bool // this is the first of its two sendings
	sent   int
}

// New returns a Sender that says nothing before it has a key.
func New(cfg Config) (*Sender, error) {
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = DefaultHeartbeat
	}
	if cfg.FrameMax == 0 {
		cfg.FrameMax = DefaultFrameMax
	}
	if cfg.Chain <= 2*wire.MaxStep {
		cfg.Chain = DefaultChain
	}
	s := &Sender{cfg: cfg, status: control.Status{OK: true}, beat: cfg.Started, report: cfg.Started}
	var err error
	s.chain, err = s.newChain(0)
	return s, err
}

func (s *Sender) newChain(base uint64) (*wire.Chain, error) {
	var salt wire.Salt
	var last wire.Element
	if _, err := io.ReadFull(s.cfg.Random, salt[:]); err != nil {
		return nil, fmt.Errorf("chain of heartbeats: %w", err)
	}
	if _, err := io.ReadFull(s.cfg.Random, last[:]); err != nil {
		return nil, fmt.Errorf("chain of heartbeats: %w", err)
	}
	return wire.NewChain(salt, base, s.cfg.Chain, last), nil
}

// SetKey is what frames are sealed with from now on; nil: nothing is sent, and what waits is dropped.
func (s *Sender) SetKey(key *wire.Key) {
	if s.key == nil && key != nil {
		s.report = time.Time{} // others do not know us before
	}
	if key == nil {
		s.queue, s.bytes = nil, 0
	}
	s.key = key
}

// SetStatus is what the next reports say. A change of OK or of its reason is said at once.
func (s *Sender) SetStatus(now time.Time, status control.Status) {
	if status.OK != s.status.OK || status.Why != s.status.Why {
		s.report = now
	}
	s.status = status
}

// Met says that somebody new was heard, who needs a report of ours to know us. jitter in [0,1) keeps all from answering at once.
func (s *Sender) Met(now time.Time, jitter float64) {
	due := now.Add(metSoonest + time.Duration(jitter*float64(metJitter)))
	if spaced := s.said.Add(metSpacing); due.Before(spaced) {
		due = spaced
	}
	if due.Before(s.report) {
		s.report = due
	}
}

// Pause says that this member restarts on purpose and is not dead before d is over. Pause(0) takes it back.
func (s *Sender) Pause(now time.Time, d time.Duration) {
	s.pause = d
	s.report = now
}

// Message queues a message for the next Tick. Errors wrap ErrNoKey, ErrFull or wire.ErrTooLarge.
func (s *Sender) Message(now time.Time, kind control.Kind, body []byte) error {
	return s.message(now, wire.Message{Kind: kind, Body: body})
}

func (s *Sender) message(now time.Time, m wire.Message) error {
	if s.key == nil {
		return fmt.Errorf("%w %v", ErrNoKey, s.cfg.Group)
	}
	if s.bytes+len(m.Body) > maxQueued {
		return fmt.Errorf("%w: %d bytes", ErrFull, s.bytes)
	}
	o := wire.Origin{Group: s.cfg.Group, Sender: s.cfg.Identity.ID(), Boot: s.cfg.Boot, Number: s.number + 1}
	signed, err := m.Sign(o, s.cfg.Identity.Private)
	if err != nil {
		return err
	}
	frames, err := wire.Split(o, signed, s.cfg.FrameMax, s.key)
	if err != nil {
		return err
	}
	s.number++
	s.bytes += len(signed)
	s.queue = append(s.queue, queued{due: now, frames: frames, again: true})
	return nil
}

// Next is when Tick has something to send.
func (s *Sender) Next() time.Time {
	next := s.beat
	if s.report.Before(next) {
		next = s.report
	}
	for _, q := range s.queue {
		if q.due.Before(next) {
			next = q.due
		}
	}
	return next
}

// Tick returns the frames that are due. beat says that a heartbeat is among them: the last one. Errors are of the random source.
func (s *Sender) Tick(now, wall time.Time) (frames [][]byte, beat bool, err error) {
	if s.key == nil {
		s.beat = now.Add(s.cfg.Heartbeat)
		s.report = s.beat
		return nil, false, nil
	}
	if !now.Before(s.report) {
		if err := s.say(now, wall); err != nil {
			return nil, false, err
		}
	}
	frames = s.messages(now)
	if now.Before(s.beat) {
		return frames, false, nil
	}
	s.beat = s.beat.Add(s.cfg.Heartbeat)
	if s.beat.Before(now) { // what a stall held up is not made good for
		s.beat = now.Add(s.cfg.Heartbeat)
	}
	heartbeat, err := s.heartbeat()
	if err != nil {
		return frames, false, err
	}
	return append(frames, heartbeat), true, nil
}

func (s *Sender) heartbeat() ([]byte, error) {
	if s.index == s.chain.End() {
		s.chain, s.next = s.next, nil
	}
	s.index++
	f := wire.Frame{Type: wire.Heartbeat, Sender: s.cfg.Identity.ID(), Boot: s.cfg.Boot, Sequence: s.index, Element: s.chain.At(s.index)}
	if s.next == nil && s.chain.End()-s.index <= wire.MaxStep {
		var err error
		if s.next, err = s.newChain(s.chain.End()); err != nil {
			return nil, err
		}
	}
	return f.Seal(nil, s.key), nil
}

// messages returns frames of what waits, a burst at most: a long message must not fill up the receivers' sockets.
func (s *Sender) messages(now time.Time) [][]byte {
	var out [][]byte
	for i := 0; i < len(s.queue) && len(out) < burst; i++ {
		q := &s.queue[i]
		if now.Before(q.due) {
			continue
		}
		n := min(burst-len(out), len(q.frames)-q.sent)
		out = append(out, q.frames[q.sent:q.sent+n]...)
		q.sent += n
		switch {
		case q.sent < len(q.frames):
			q.due = now.Add(burstSpacing)
		case q.again:
			q.again, q.sent, q.due = false, 0, now.Add(repeatAfter)
		}
	}
	s.queue = slices.DeleteFunc(s.queue, func(q queued) bool {
		if q.again || q.sent < len(q.frames) {
			return false
		}
		for _, f := range q.frames {
			s.bytes -= len(f) - wire.Overhead
		}
		return true
	})
	return out
}

// say queues a report.
func (s *Sender) say(now, wall time.Time) error {
	r := &controlv1.Report{
		TimeUnixNano: wall.UnixNano(),
		Chain:        position(s.chain, s.index),
		Health:       controlv1.Health_HEALTH_OK,
		PauseMs:      uint32(s.pause.Milliseconds()),
		IntervalMs:   uint32(s.cfg.Heartbeat.Milliseconds()),
	}
	if !s.status.OK {
		r.Health, r.Why = controlv1.Health_HEALTH_UNWELL, s.status.Why
	}
	if s.next != nil {
		r.Next = position(s.next, s.next.Base)
	}
	for _, name := range slices.Sorted(maps.Keys(s.status.Loads)) {
		r.Loads = append(r.Loads, &controlv1.ServiceLoad{Service: name, Load: alloc.LoadToProto(s.status.Loads[name])})
	}
	body, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	s.said = now
	s.report = now.Add(reportEvery)
	if now.Sub(s.cfg.Started) < reportEvery {
		s.report = now.Add(reportEager)
	}
	return s.message(now, wire.Message{Kind: control.KindReport, Certificate: s.cfg.Identity.Raw(), Body: body})
}

func position(c *wire.Chain, index uint64) *controlv1.Chain {
	salt, element := c.Salt, c.At(index)
	return &controlv1.Chain{Salt: salt[:], Index: index, Element: element[:]}
}
