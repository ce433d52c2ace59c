// Package channel is the task that makes a control.Channel of members, sender and a transport: the one owner of both.
package channel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/control/sender"
	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/control/wire"
	"github.com/manycast/manycast/internal/keyfile"
)

const (
	packetsWaiting = 4096
	packetsAtOnce  = 256 // before the clock is looked at
	lastWord       = 30 * time.Millisecond
)

// Config is what a Channel is made of.
type Config struct {
	Identity  identity.Identity // the zero one: it listens, and nobody hears of it
	Name      string            // of who listens
	Authority ed25519.PublicKey
	Group     netip.Addr
	Heartbeat time.Duration
	DeadAfter time.Duration
	FrameMax  int
	Known     []members.Known // from before a restart
	Transport transport.Transport
	Random    io.Reader
	Log       *slog.Logger
}

// Channel is a daemon's task, and a control.Channel from New on.
type Channel struct {
	cfg  Config
	boot uint64
	kick chan struct{}
	turn chan struct{}

	mu        sync.Mutex
	members   *members.Members
	sender    *sender.Sender
	status    control.Status // as the owner said
	deaf      bool
	boots     map[string]uint64 // whom we have met
	listeners []*listener
	beat      func()
	alive     func() bool // nil: always
	sent      uint64
	unsent    uint64
	sendErr   string // told once
}

// listener gets events in the loop, one at a time.
type listener struct {
	handle func(control.Event)
	fresh  bool // has yet to hear of all members
}

var _ control.Channel = (*Channel)(nil)

// New returns a Channel that has yet to run. Certificates that others would refuse are errors here.
func New(cfg Config) (*Channel, error) {
	now := time.Now()
	if cfg.listens() {
		cfg.Identity.Name = cfg.Name
	} else if err := cfg.Identity.Verify(cfg.Authority, now); err != nil {
		return nil, fmt.Errorf("control channel: own identity: %w", err)
	}
	boot, err := newBoot(cfg.Random)
	if err != nil {
		return nil, err
	}
	s, err := sender.New(sender.Config{
		Identity: cfg.Identity, Group: cfg.Group, Boot: boot, Started: now, Heartbeat: cfg.Heartbeat, FrameMax: cfg.FrameMax, Random: cfg.Random,
	})
	if err != nil {
		return nil, err
	}
	c := &Channel{
		cfg: cfg, boot: boot, kick: make(chan struct{}, 1), turn: make(chan struct{}), sender: s, status: control.Status{OK: true}, boots: make(map[string]uint64),
		members: members.New(members.Config{
			Group: cfg.Group, Self: cfg.Identity.ID(), Authority: cfg.Authority, DeadAfter: cfg.DeadAfter, Started: now,
		}),
	}
	c.members.Restore(now, cfg.Known)
	return c, nil
}

func newBoot(random io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return 0, fmt.Errorf("boot identifier: %w", err)
	}
	var boot uint64
	for _, x := range b {
		boot = boot<<8 | uint64(x)
	}
	return boot, nil
}

// ErrListens says that this process has nothing to say on the channel.
var ErrListens = errors.New("control channel: without an identity it is only listened to")

func (c Config) listens() bool { return c.Identity.Private == nil }

// String names the task.
func (c *Channel) String() string { return "control channel" }

// Ready is closed at once: hearing nobody is no failure.
func (c *Channel) Ready() <-chan struct{} { return nil }

// Turns is the loop's.
func (c *Channel) Turns() []chan<- struct{} { return []chan<- struct{}{c.turn} }

// OnBeat has beat called after each heartbeat that has left. Set it before Run.
func (c *Channel) OnBeat(beat func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat = beat
}

// SpeakWhile has nothing leave while its user is not alive: others are to find out, and take over what it does not do any more. Set it
// before Run. The channel asks with its lock held: alive calls nothing of it.
func (c *Channel) SpeakWhile(alive func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alive = alive
}

// mute says that the channel's user is not alive.
func (c *Channel) mute() bool { return c.alive != nil && !c.alive() }

// SetKeys gives the group's keys, the one in force first; those of other groups are left out.
func (c *Channel) SetKeys(groups []keyfile.Group) {
	var keys []*wire.Key
	var forSender *wire.Key
	for _, g := range groups {
		if g.Address != c.cfg.Group {
			continue
		}
		key, err := wire.NewKey(g.Public().ID, g.Address, g.Private)
		if err != nil {
			c.cfg.Log.Error("key of the control group cannot be used", "key", fmt.Sprintf("%08x", g.Public().ID), "err", err)
			continue
		}
		if forSender == nil {
			forSender = key
		}
		keys = append(keys, key)
	}
	c.mu.Lock()
	c.members.SetKeys(keys)
	if !c.cfg.listens() { // a sender without a key says nothing
		c.sender.SetKey(forSender)
	}
	c.mu.Unlock()
	c.wake()
}

// Send implements control.Channel.
func (c *Channel) Send(kind control.Kind, body []byte) error {
	if c.cfg.listens() {
		return ErrListens
	}
	c.mu.Lock()
	err := c.sender.Message(time.Now(), kind, body)
	c.mu.Unlock()
	c.wake()
	if err != nil {
		return fmt.Errorf("control channel: %w", err)
	}
	return nil
}

// SetStatus implements control.Channel.
func (c *Channel) SetStatus(s control.Status) {
	c.mu.Lock()
	c.status = s
	c.tellStatus(time.Now())
	c.mu.Unlock()
	c.wake()
}

// tellStatus says what the owner said, or that nobody is heard: who is cut off from all must not be relied on.
func (c *Channel) tellStatus(now time.Time) {
	s := c.status
	if c.deaf && s.OK {
		s.OK, s.Why = false, control.Deaf
	}
	c.sender.SetStatus(now, s)
}

// Pause says that this member restarts on purpose and will be silent for d at most. It returns when that has been sent.
func (c *Channel) Pause(d time.Duration) error {
	if c.cfg.listens() {
		return ErrListens
	}
	if d > members.MaxPause {
		return fmt.Errorf("control channel: pause of %v, at most %v", d, members.MaxPause)
	}
	c.mu.Lock()
	now := time.Now()
	c.sender.Pause(now, d)
	frames, _, err := c.sender.Tick(now, now)
	if err == nil && len(frames) == 0 {
		err = sender.ErrNoKey
	}
	c.mu.Unlock()
	for _, f := range frames {
		err = errors.Join(err, c.cfg.Transport.Send(f))
	}
	c.wake()
	return err
}

// Silence implements control.Channel.
func (c *Channel) Silence() time.Duration { return c.cfg.DeadAfter }

// Listen implements control.Channel.
func (c *Channel) Listen(handle func(control.Event)) (stop func()) {
	l := &listener{handle, true}
	c.mu.Lock()
	c.listeners = append(c.listeners, l)
	c.mu.Unlock()
	c.wake()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.listeners = slices.DeleteFunc(c.listeners, func(x *listener) bool { return x == l })
	}
}

// Members returns all members, by name.
func (c *Channel) Members() []control.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members.Members()
}

// Known is what is worth keeping over a restart.
func (c *Channel) Known() []members.Known {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members.Known()
}

// Counters are since New.
type Counters struct {
	members.Counters
	Sent   uint64 // frames
	Unsent uint64 // that left by no interface
}

// Counters returns them.
func (c *Channel) Counters() Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counters{c.members.Counters(), c.sent, c.unsent}
}

// Refused counts the frames refused, by reason.
func (c *Channel) Refused() map[string]uint64 {
	out := make(map[string]uint64)
	for reason, n := range c.Counters().Refused {
		out[string(reason)] = n
	}
	return out
}

func (c *Channel) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Run implements daemon.Task.
func (c *Channel) Run(ctx context.Context) error {
	// Whoever is told last uses the channel until the end: it goes on a little after ctx is done.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	packets := make(chan transport.Packet, packetsWaiting)
	ended := make(chan error, 1)
	go func() { ended <- c.cfg.Transport.Run(inner, packets) }()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	done, end := ctx.Done(), (<-chan time.Time)(nil)
	for {
		var first *transport.Packet
		select {
		case <-done:
			done, end = nil, time.After(lastWord)
		case <-end:
			cancel()
			return <-ended
		case err := <-ended:
			return fmt.Errorf("control channel: transport ended: %w", err)
		case p := <-packets:
			first = &p
		case <-c.kick:
		case <-c.turn:
		case <-timer.C:
		}
		timer.Reset(c.step(first, packets))
	}
}

// step takes what came, does what is due, and says how long nothing more is.
func (c *Channel) step(first *transport.Packet, packets <-chan transport.Packet) time.Duration {
	now := time.Now()
	c.mu.Lock()
	var events []control.Event
	if first != nil {
		events = c.hear(now, *first, packets)
	}
	if !now.Before(c.members.Next()) {
		events = append(events, c.members.Tick(now)...)
	}
	c.meet(now, events)
	if deaf := c.members.Deaf(now); deaf != c.deaf {
		c.deaf = deaf
		c.tellStatus(now)
		c.cfg.Log.Warn("control channel", "hears_nobody", deaf)
	}
	var frames [][]byte
	var beat bool
	var err error
	mute := c.mute()
	if !mute && !now.Before(c.sender.Next()) {
		frames, beat, err = c.sender.Tick(now, now)
	}
	deliver := c.deliveries(events)
	onBeat := c.beat
	c.mu.Unlock()

	c.send(frames, beat, onBeat, err)
	for _, d := range deliver {
		for _, e := range d.events {
			d.to(e)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.members.Next() // never far away: then a mute channel asks again
	if s := c.sender.Next(); !mute && s.Before(next) {
		next = s
	}
	return max(time.Until(next), 0)
}

// hear takes the packets that wait, but not so many that heartbeats are late.
func (c *Channel) hear(now time.Time, p transport.Packet, packets <-chan transport.Packet) (events []control.Event) {
	for range packetsAtOnce {
		es, err := c.members.Frame(now, now, p.Interface, p.Source, p.Payload)
		if err != nil {
			c.cfg.Log.Debug("control frame refused", "interface", p.Interface, "source", p.Source, "err", err)
		}
		events = append(events, es...)
		select {
		case p = <-packets:
		default:
			return events
		}
	}
	return events
}

// meet answers those who have begun to speak: they do not know us before they have a report of ours.
func (c *Channel) meet(now time.Time, events []control.Event) {
	for _, e := range events {
		changed, ok := e.(control.Changed)
		if !ok || changed.Member.Health == control.Silent {
			continue
		}
		if m := changed.Member; m.Boot != 0 && c.boots[m.Name] != m.Boot {
			c.boots[m.Name] = m.Boot
			c.sender.Met(now, rand.Float64())
			c.cfg.Log.Info("met on the control channel", "member", m.Name, "address", m.Address, "via", m.Via)
		}
	}
}

// send hands frames to the transport. A heartbeat counts where it left by an interface at least.
func (c *Channel) send(frames [][]byte, beat bool, onBeat func(), err error) {
	left := false
	for _, f := range frames {
		sendErr := c.cfg.Transport.Send(f)
		left = sendErr == nil // the heartbeat is the last
		err = errors.Join(err, sendErr)
	}
	if beat && left && onBeat != nil {
		onBeat()
	}
	if len(frames) == 0 && err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
		c.unsent++
	}
	c.sent += uint64(len(frames))
	if text != c.sendErr && text != "" {
		c.cfg.Log.Warn("control channel", "err", err)
	}
	c.sendErr = text
}

// delivery is events for one listener.
type delivery struct {
	to     func(control.Event)
	events []control.Event
}

func (c *Channel) deliveries(events []control.Event) (out []delivery) {
	for _, l := range c.listeners {
		d := delivery{l.handle, events}
		if l.fresh {
			l.fresh = false
			d.events = nil
			for _, m := range c.members.Members() {
				d.events = append(d.events, control.Changed{Member: m})
			}
			for _, e := range events {
				if _, ok := e.(control.Received); ok {
					d.events = append(d.events, e)
				}
			}
		}
		if len(d.events) > 0 {
			out = append(out, d)
		}
	}
	return out
}
