package scenario

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// The phases of scenario dyntcp.
const (
	phaseRandom      = "moves at random"
	phaseHandshakes  = "handshakes"
	phaseAttackers   = "attackers while nobody moves"
	phaseDynEmptied  = "one server drained and back"
	phaseDynHandsOut = "a server killed while it hands over"
)

const (
	randomEvery  = 650 * time.Millisecond // between two moves
	randomWeight = 8
	dynWeights   = randomWeight + 2 + 2
)

// handshakes are made by either kind of users, in turns.
const handshakes = 200

func (d *dyntcp) plan() []phase {
	return []phase{
		{name: phaseRandom, weight: randomWeight, act: d.harassed(d.wander)},
		{name: phaseHandshakes, act: d.shakeHands},
		{name: phaseAttackers, act: d.attack},
		{name: phaseDynEmptied, weight: 2, act: d.harassed(d.empty)},
		{name: phaseDynHandsOut, weight: 2, act: d.killGiver},
	}
}

// expectedDynTCP are the moves that the phases have to bring, by words of the leader's reasons.
var expectedDynTCP = map[string][]string{
	phaseRandom:      {"shares changed"},
	phaseAttackers:   {"shares changed"},
	phaseDynEmptied:  {"s1 is drained", "s1 joined"},
	phaseDynHandsOut: {"s2 joined"},
}

// wander has random groups of users go to random servers again and again, one time in four with the next time on its heels. Where the machine keeps
// a server from taking part, users stay for longer, or go to another one meanwhile: all that has to be so at the end alone.
func (d *dyntcp) wander(ctx context.Context) error {
	end := time.Now().Add(d.o.Duration*randomWeight/dynWeights - randomEvery)
	for time.Now().Before(end) {
		next := time.Now().Add(randomEvery)
		before := d.web.epoch()
		for again := d.rand.IntN(4) == 0; ; again = false {
			d.scatter()
			if err := d.apply(ctx); err != nil {
				return err
			}
			if !again {
				break
			}
		}
		if err := d.web.awaitEpoch(ctx, before); err != nil {
			if ctx.Err() != nil {
				return err
			}
			d.o.Progress.Note("%v", err)
		}
		if err := d.watchUntil(ctx, next); err != nil {
			return err
		}
	}
	return d.settled(ctx)
}

// killGiver kills a server while it hands over. Wherever users were last, it has some of them.
func (d *dyntcp) killGiver(ctx context.Context) error {
	d.settle(0)
	if err := d.apply(ctx); err != nil {
		return err
	}
	if err := d.settled(ctx); err != nil {
		return err
	}
	return d.killHandingOver(ctx, "s2", true)
}

// settled waits until all servers serve and each group is where it is to be, for as long as the machine may keep servers from it.
func (d *dyntcp) settled(ctx context.Context) (err error) {
	for range 3 {
		if _, err = d.awaitGroups(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

// harassed has attackers be at work meanwhile.
func (d *dyntcp) harassed(act func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		harassing, end := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- d.harassing(harassing) }()
		err := act(ctx)
		end()
		return errors.Join(err, <-done)
	}
}

// scatter chooses another server for two groups of three, and for one at least.
func (d *dyntcp) scatter() {
	one := d.rand.IntN(groups)
	for i := range d.first {
		if i == one || d.rand.IntN(3) > 0 {
			d.first[i] = (d.first[i] + 1 + d.rand.IntN(len(d.servers)-1)) % len(d.servers)
		}
	}
}

// shakeHands measures how long connections take to be made while nobody moves, by users with and without in turns.
func (d *dyntcp) shakeHands(ctx context.Context) error {
	own, plain := d.usersOf(nodeUsers), d.usersOf(nodePlain)
	for i := range handshakes {
		first, err := d.shake(ctx, plain[i%len(plain)])
		second, err2 := d.shake(ctx, own[i%len(own)])
		if err := errors.Join(err, err2, ctx.Err()); err != nil {
			return err
		}
		d.plain, d.own = append(d.plain, first), append(d.own, second)
	}
	return nil
}

// shake makes a connection of a user.
func (d *dyntcp) shake(ctx context.Context, user netip.Addr) (took time.Duration, err error) {
	ns, err := d.lab.Namespace(d.home(user))
	if err != nil {
		return 0, err
	}
	err = ns.Do(func() error {
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(user, 0)), Timeout: time.Second}
		began := time.Now()
		c, err := dialer.DialContext(ctx, "tcp4", net.JoinHostPort(d.vars["vip"], "80"))
		took = time.Since(began)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return took, err
}
