package main

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/sender"
	"github.com/manycast/manycast/internal/control/wire"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/join"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// cost is what one epoch of a service takes on the wire: a server has died, and the others take its slots.
type cost struct {
	Servers  int `json:"servers"`
	SlotBits int `json:"slot_bits"`

	Announce  int     `json:"announce_bytes"` // of protobuf
	Commit    int     `json:"commit_bytes"`
	Frames    int     `json:"frames"`      // of announce, commit, and each server's prepared and done, each sent twice
	Bytes     int     `json:"frame_bytes"` // of UDP payload
	Spread    float64 `json:"announce_ms"` // that the sender takes to send the announcement, at its pace
	Joins     int     `json:"join_bytes"`  // signed, of all servers
	JoinMean  float64 `json:"join_bytes_per_server"`
	JoinParts int     `json:"join_parts_most"` // of one server
	Portions  int     `json:"portions"`        // owned and stood by for, in all
	Next      float64 `json:"next_ms"`         // CPU time of alloc.Next
	TooLarge  string  `json:"too_large,omitempty"`
}

const mtu = 1500

var (
	costGroup = netip.AddrFrom4([4]byte{239, 80, 80, 80})
	costKey   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
)

// measureCost encodes what an epoch says, and cuts it into frames and joins.
func measureCost(servers, slotBits int) (c cost, err error) {
	c = cost{Servers: servers, SlotBits: slotBits}
	want := alloc.Want{Epoch: epoch.Epoch{Term: 3, Number: 1000}, Slots: alloc.Slots{By: alloc.Suffix, Bits: slotBits}}
	for i := range servers {
		want.Servers = append(want.Servers, alloc.Server{
			Name: fmt.Sprintf("s%04d.example", i+1), Weight: 10, Alive: true, Address: netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}),
		})
	}
	before, _, err := alloc.Next(alloc.Allocation{}, want)
	if err != nil {
		return c, err
	}
	want.Epoch.Number++
	want.Servers[servers/2].Alive = false
	began := time.Now()
	after, _, err := alloc.Next(before, want)
	c.Next = float64(time.Since(began)) / 1e6
	if err != nil {
		return c, err
	}
	if err := c.messages(before, after); err != nil {
		return c, err
	}
	return c, c.joins(after)
}

// messages of a reallocation on the control channel.
func (c *cost) messages(before, after alloc.Allocation) error {
	const service = "web"
	e := alloc.EpochToProto(after.Epoch)
	announce := &allocv1.Announce{Allocation: alloc.ToProto(service, after), Previous: alloc.ToProto(service, before)}
	commit := &allocv1.Commit{Allocation: alloc.ToProto(service, after)}
	c.Announce, c.Commit = proto.Size(announce), proto.Size(commit)
	n, err := c.message(control.KindAnnounce, announce, 1)
	if err != nil {
		c.TooLarge = err.Error()
		return nil //nolint:nilerr // that it does not fit is what was to be found out
	}
	c.Spread = float64((n + 63) / 64) // a burst of 64 frames each millisecond (sender)
	if _, err := c.message(control.KindCommit, commit, 1); err != nil {
		return err
	}
	prepared := &allocv1.Prepared{Service: service, Epoch: e, Server: after.Servers[0]}
	if _, err := c.message(control.KindPrepared, prepared, len(after.Servers)); err != nil {
		return err
	}
	done := &allocv1.Done{Service: service, Epoch: e, Server: after.Servers[0], ConnectionsClosed: 100}
	_, err = c.message(control.KindDone, done, len(after.Servers))
	return err
}

// message adds one that so many members send, and returns its frames.
func (c *cost) message(kind control.Kind, m proto.Message, members int) (int, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return 0, err
	}
	o := wire.Origin{Group: costGroup, Sender: identity.ID{1}, Boot: 1, Number: 1}
	signed, err := wire.Message{Kind: kind, Body: body}.Sign(o, costKey)
	if err != nil {
		return 0, err
	}
	key, err := wire.NewKey(1, costGroup, costKey)
	if err != nil {
		return 0, err
	}
	frames, err := wire.Split(o, signed, sender.DefaultFrameMax, key)
	if err != nil {
		return 0, err
	}
	const sendings = 2
	for _, f := range frames {
		c.Frames += sendings * members
		c.Bytes += sendings * members * len(f)
	}
	return len(frames), nil
}

// joins of all servers.
func (c *cost) joins(a alloc.Allocation) error {
	for i, name := range a.Servers {
		j := join.Join{
			Group: costGroup, Requester: a.Addresses[i], Link: netip.PrefixFrom(a.Addresses[i], 24), Epoch: a.Epoch, Change: true,
			Owner: a.Users(name), Standby: a.StandbyUsers(name),
		}
		c.Portions += len(j.Owner.Permit) + len(j.Owner.Deny) + len(j.Standby.Permit) + len(j.Standby.Deny)
		parts, err := join.Split(j, join.Room(mtu))
		if err != nil {
			c.TooLarge, c.JoinParts = fmt.Sprintf("%s: %v", name, err), 0
			return nil
		}
		c.JoinParts = max(c.JoinParts, len(parts))
		if err := c.sign(parts); err != nil {
			c.TooLarge, c.JoinParts = fmt.Sprintf("%s: %v", name, err), 0
			return nil
		}
	}
	c.JoinMean = float64(c.Joins) / float64(len(a.Servers))
	return nil
}

// sign adds one server's join, and puts its parts together as a router does.
func (c *cost) sign(parts []join.Join) error {
	if err := join.Stamp(parts, time.Unix(1e9, 0), rand.NewChaCha8([32]byte{})); err != nil {
		return err
	}
	router := join.NewAssembler(join.Limits{})
	for _, p := range parts {
		signed, err := join.Sign(p, costKey)
		if err != nil {
			return err
		}
		c.Joins += len(signed.Raw)
		if _, _, err := router.Add(time.Unix(1e9, 0), signed); err != nil {
			return err
		}
	}
	return nil
}
