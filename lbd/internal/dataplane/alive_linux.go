package dataplane

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// takeOver goes on being alive if a former agent still counts as that: this one has to find out first what is its own. After
// that time others may have its users. A longer time that the former one left is not cut.
func (a *agent) takeOver() error {
	until, now, err := a.life()
	if err != nil || now >= until {
		return err
	}
	return a.live(agentMapAliveUntil, max(until, now+a.config.Hold))
}

// liveOn is a sign of life. What a former agent took in the stead of others it does not prolong: this one has yet to hear of them.
func (a *agent) liveOn(until time.Duration) error {
	err := a.live(agentMapAliveUntil, until)
	if err == nil && a.isSet.Load() {
		err = a.live(agentMapInSteadUntil, until)
	}
	return err
}

// Revive writes until when the agent counts as alive.
func (a *agent) Revive() error {
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	return a.liveOn(now + a.config.Hold)
}

// Renew lets an agent live on that has not lapsed. The clock is read before the map: who is stopped in between writes a time that
// is over.
func (a *agent) Renew() error {
	if a.paused.Load() {
		return nil
	}
	until, now, err := a.life()
	switch {
	case err != nil:
		return err
	case now >= until:
		return ErrLapsed
	}
	return a.liveOn(now + a.config.Hold)
}

// Alive reports whether users of leased services are taken.
func (a *agent) Alive() (bool, error) {
	until, now, err := a.life()
	return now < until, err
}

// Pause leaves the agent alive for d, but for those whom it takes in the stead of others, and Renew without effect.
func (a *agent) Pause(d time.Duration) error {
	until, now, err := a.life()
	switch {
	case err != nil:
		return err
	case now >= until:
		return ErrLapsed
	}
	a.paused.Store(true)
	return a.live(agentMapAliveUntil, now+d)
}

// life returns until when the agent counts as alive, and what time it is, since boot.
func (a *agent) life() (until, now time.Duration, err error) {
	if now, err = sinceBoot(); err != nil {
		return 0, 0, err
	}
	var ns uint64
	if err := a.coll.Maps[agentMapAliveUntil].Lookup(uint32(0), &ns); err != nil {
		return 0, 0, fmt.Errorf("agent: read until when it is alive: %w", err)
	}
	return time.Duration(ns), now, nil
}

func (a *agent) live(as string, until time.Duration) error {
	if err := a.coll.Maps[as].Put(uint32(0), uint64(until)); err != nil {
		return fmt.Errorf("agent: say that it is alive: %w", err)
	}
	return nil
}

// sinceBoot is the clock of bpf_ktime_get_boot_ns: it goes on while the host sleeps.
func sinceBoot() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
