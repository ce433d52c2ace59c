package scenario

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/lab/forger"
)

// Nodes of attackers in scenario dyntcp.
const (
	nodeOnPath  = "m"
	nodeOffPath = "off"
)

// How much attackers send while nobody moves.
const (
	attacksEach  = 48                    // of each kind
	attackEvery  = 25 * time.Millisecond // about one connection: faster ones are a flood
	floodOnPath  = 3000                  // messages of one connection
	floodOffPath = 20000                 // guesses
	segmentsEach = 64                    // forged segments of each kind, of each connection
)

// harassEvery is the time between two messages of attackers while users move.
const harassEvery = 25 * time.Millisecond

// attackers are a host that all packets of users pass, and one that sees none.
type attackers struct {
	on, off *forger.Sender
	key     ed25519.PrivateKey // nobody has published it
	evil    netip.AddrPort     // of the host off the path
	sent    map[string]int     // while nobody moves, by the reasons for which it has to be refused
	got     map[string]int     // so it was
	harass  harassment         // sent while users moved
	n       uint64
}

// harassment counts messages that were sent while users moved.
type harassment struct{ on, off int }

func (d *dyntcp) openAttackers() (a *attackers, err error) {
	a = &attackers{sent: map[string]int{}, got: map[string]int{}}
	if _, a.key, err = ed25519.GenerateKey(nil); err != nil {
		return nil, err
	}
	at, err := d.lab.Topology().Address(nodeOffPath, "eth0")
	if err != nil {
		return nil, err
	}
	a.evil = netip.AddrPortFrom(at.Addr(), d.places[d.servers[0]].Port())
	on, err := d.lab.Namespace(nodeOnPath)
	if err != nil {
		return nil, err
	}
	off, err := d.lab.Namespace(nodeOffPath)
	if err != nil {
		return nil, err
	}
	if a.on, err = forger.Open(on); err != nil {
		return nil, err
	}
	if a.off, err = forger.Open(off); err != nil {
		return nil, errors.Join(err, a.on.Close())
	}
	return a, nil
}

func (a *attackers) close() error { return errors.Join(a.on.Close(), a.off.Close()) }

// target is a connection as attackers know it.
type target struct {
	clientstatus.Connection
	seen forger.Message // the newest message about it that has passed; zero: none has
}

// targets are the streams of a host's users, with what passed of them.
func (d *dyntcp) targets(ctx context.Context, node string) (all []target, err error) {
	list, err := d.flowList(ctx, node)
	if err != nil {
		return nil, err
	}
	announced := d.announced()
	for _, c := range list {
		if c.VIP.Port() != d.places[d.servers[0]].Port() {
			continue
		}
		t := target{Connection: c}
		if seen := announced[claimed{c.User, c.VIP, c.Tag}]; len(seen) > 0 {
			t.seen = seen[len(seen)-1]
		}
		all = append(all, t)
	}
	return all, nil
}

// hostPort is where a user's host takes messages.
func hostPort(user netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(user.Addr(), forger.Port)
}

// forge sends a message about a connection from the path, as if it were from its server.
func (d *dyntcp) forge(kind forger.Kind, t target) error {
	other := d.places[d.servers[0]]
	if other == t.Destination {
		other = d.places[d.servers[1]]
	}
	raw, err := forger.Forge(kind, t.seen, d.attackers.key, other, d.attackers.evil, time.Now())
	if err != nil {
		return err
	}
	return d.attackers.on.UDP(netip.AddrPortFrom(other.Addr(), forger.SourcePort), hostPort(t.User), raw)
}

// guess sends one from off the path.
func (d *dyntcp) guess(kind forger.Kind, t target) error {
	a := d.attackers
	a.n++
	raw, err := forger.Guess(kind, t.User, t.VIP, t.Destination, a.evil, t.Tag, a.n, time.Now())
	if err != nil {
		return err
	}
	return a.off.UDP(netip.AddrPortFrom(t.Destination.Addr(), forger.SourcePort), hostPort(t.User), raw)
}

// wants notes what was sent.
func (a *attackers) wants(kind forger.Kind, n int) {
	a.sent[strings.Join(forger.Reasons[kind], orElse)] += n
}

// attack has both hosts send all that they can while nobody moves, and compares what was sent with what was refused.
func (d *dyntcp) attack(ctx context.Context) error {
	// Each stream moves once more, so that the host on the path has seen a message of each.
	for i := range d.first {
		d.next(i)
	}
	if err := d.apply(ctx); err != nil {
		return err
	}
	if err := d.settled(ctx); err != nil {
		return err
	}
	if err := d.checkFollowed(ctx); err != nil {
		return err
	}
	before, err := d.quiet(ctx)
	if err != nil {
		return err
	}
	all, err := d.targets(ctx, nodeUsers)
	if err != nil {
		return err
	}
	seen := slices.DeleteFunc(slices.Clone(all), func(t target) bool { return t.seen == forger.Message{} || t.seen.Destination() != t.Destination })
	if len(seen) == 0 {
		return fmt.Errorf("of %d streams none has a message that passed %s", len(all), nodeOnPath)
	}
	if err := d.attackInTurns(ctx, seen, all); err != nil {
		return err
	}
	if err := d.floods(seen, all); err != nil {
		return err
	}
	for _, t := range all {
		if err := d.forgeSegments(t); err != nil {
			return err
		}
	}
	after, err := d.quiet(ctx)
	if err != nil {
		return err
	}
	d.judgeAttack(before, after)
	return nil
}

// attackInTurns sends messages of each kind, so slowly that each is judged by itself.
func (d *dyntcp) attackInTurns(ctx context.Context, seen, all []target) error {
	for i := range attacksEach {
		for _, kind := range forger.OnPath {
			if err := errors.Join(ctx.Err(), d.forge(kind, seen[i%len(seen)])); err != nil {
				return err
			}
			d.attackers.wants(kind, 1)
			time.Sleep(attackEvery / time.Duration(len(seen)))
		}
		for _, kind := range forger.OffPath {
			if err := d.guess(kind, all[i%len(all)]); err != nil {
				return err
			}
			d.attackers.wants(kind, 1)
		}
	}
	return nil
}

// floods sends as much at once as there is.
func (d *dyntcp) floods(seen, all []target) error {
	for range floodOnPath {
		if err := d.forge(forger.Flood, seen[0]); err != nil {
			return err
		}
	}
	d.attackers.wants(forger.Flood, floodOnPath)
	for i := range floodOffPath {
		if err := d.guess(forger.WrongCookie, all[i%len(all)]); err != nil {
			return err
		}
	}
	d.attackers.wants(forger.WrongCookie, floodOffPath)
	return nil
}

// forgeSegments sends, from off the path, segments of the stream as if they were its server's, or its user's: TCP's own numbers keep them out.
func (d *dyntcp) forgeSegments(t target) error {
	ends := []forger.Segment{{From: t.VIP, To: t.User}, {From: t.Destination, To: t.User}, {From: t.User, To: t.VIP}, {From: t.User, To: t.Destination}}
	for range segmentsEach {
		for _, s := range ends {
			for _, flags := range []byte{forger.RST, forger.RST | forger.ACK, forger.SYN, forger.ACK | forger.PSH, forger.FIN | forger.ACK} {
				s.Sequence, s.Ack, s.Flags, s.Payload = rand.Uint32(), rand.Uint32(), flags, nil
				if flags&forger.PSH != 0 {
					s.Payload = []byte("these are bytes of who is no server.....")
				}
				if err := d.attackers.off.TCP(s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// quiet waits until a user's host refuses nothing any more, and says what it has refused.
func (d *dyntcp) quiet(ctx context.Context) (refused map[string]uint64, err error) {
	same := 0
	err = d.until(ctx, 15*time.Second, func() (bool, error) {
		s, err := clientstatus.Ask(ctx, d.socket(nodeUsers))
		if err != nil {
			return false, err
		}
		if maps.Equal(refused, s.Refused) {
			same++
		} else {
			same = 0
		}
		refused = s.Refused
		return same >= 5, nil
	})
	return refused, err
}

// judgeAttack: each message was refused for the reason for which it has to be. Only of old messages there may be more: servers repeat theirs.
func (d *dyntcp) judgeAttack(before, after map[string]uint64) {
	for why, n := range after {
		if more := int(n - before[why]); more > 0 {
			d.attackers.got[why] = more
		}
	}
	detail, ok := refusedAsSent(d.attackers.sent, d.attackers.got)
	d.check("attackers are refused for the reason why", ok, "%s", detail)
}

// orElse is between reasons of which any may be.
const orElse = " or "

// refusedAsSent compares what was sent, by reasons, with what was refused.
func refusedAsSent(sent, refused map[string]int) (detail string, ok bool) {
	left := map[string]int{}
	maps.Copy(left, refused)
	ok = len(sent) > 0
	var said []string
	// Those of one reason first: what is left is the floods'.
	wants := slices.SortedFunc(maps.Keys(sent), func(a, b string) int {
		return cmp.Or(strings.Count(a, orElse)-strings.Count(b, orElse), strings.Compare(a, b))
	})
	for _, want := range wants {
		got, reasons := 0, strings.Split(want, orElse)
		for _, why := range reasons {
			take := left[why]
			if len(reasons) == 1 {
				take = min(take, sent[want])
			}
			got, left[why] = got+take, left[why]-take
		}
		ok = ok && got == sent[want]
		said = append(said, fmt.Sprintf("%s %d of %d", want, got, sent[want]))
	}
	for _, why := range slices.Sorted(maps.Keys(left)) {
		if n := left[why]; n > 0 && why != "stale" {
			ok = false
			said = append(said, fmt.Sprintf("%s %d more", why, n))
		}
	}
	return strings.Join(said, ", "), ok
}

// harassing has both hosts send messages of all kinds while users move, until ctx is done.
func (d *dyntcp) harassing(ctx context.Context) error {
	tick := time.NewTicker(harassEvery)
	defer tick.Stop()
	for {
		all, err := d.targets(ctx, nodeUsers)
		if err != nil {
			return err
		}
		for range 40 {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if err := d.annoy(all); err != nil {
				return err
			}
		}
	}
}

// annoy sends a message of any kind about any of the connections, and what would tell its servers, if they took it for the user's, that it has followed.
func (d *dyntcp) annoy(all []target) error {
	if len(all) == 0 {
		return nil
	}
	t := all[rand.IntN(len(all))]
	for _, at := range d.places {
		s := forger.Segment{From: t.User, To: at, Sequence: rand.Uint32(), Ack: rand.Uint32(), Flags: forger.ACK}
		if err := d.attackers.off.TCP(s); err != nil {
			return err
		}
	}
	if (t.seen == forger.Message{}) || rand.IntN(2) == 0 {
		d.attackers.harass.off++
		return d.guess(forger.OffPath[rand.IntN(len(forger.OffPath))], t)
	}
	d.attackers.harass.on++
	return d.forge(forger.OnPath[rand.IntN(len(forger.OnPath))], t)
}

// offPath are the reasons for which messages from off the path are refused. No server's message is refused for one of them.
func offPath() map[string]bool {
	reasons := map[string]bool{}
	for _, kind := range forger.OffPath {
		for _, why := range forger.Reasons[kind] {
			reasons[why] = true
		}
	}
	return reasons
}
