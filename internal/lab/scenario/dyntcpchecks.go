package scenario

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/connects"
	"github.com/manycast/manycast/internal/lab/forger"
	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// followWithin is how long users' hosts may take to follow the last of many moves.
const followWithin = 3 * time.Second

// socket is where a node's lbd client tells how it is.
func (d *dyntcp) socket(node string) string {
	if node == nodeSingle {
		name := connects.Prefix + strconv.Itoa(d.single.cmd.Process.Pid)
		return filepath.Join(clientstatus.RunDir, name, clientstatus.SocketName)
	}
	return filepath.Join(d.lab.Dir(node), "client.sock")
}

// flowList is what `manycast flow list` says on a user's host.
func (d *dyntcp) flowList(ctx context.Context, node string) (all []clientstatus.Connection, err error) {
	text, err := d.lab.Command(ctx, node, "manycast", "flow", "list", "--client", "--client-socket", d.socket(node), "--limit", "0", "-o", "json").Output()
	if err != nil {
		return nil, fmt.Errorf("flow list at %s: %w", node, err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("flow list at %s: %w", node, err)
	}
	for _, c := range all {
		d.look(c)
	}
	return all, nil
}

// checkFollowed: when users have been where they are for a while, their hosts send streams to the server that has them.
func (d *dyntcp) checkFollowed(ctx context.Context) error {
	for _, node := range []string{nodeUsers, nodeSingle} {
		var streams, moved int
		var elsewhere, late []string
		err := d.until(ctx, followWithin, func() (done bool, err error) {
			all, err := d.flowList(ctx, node)
			if err != nil {
				return false, err
			}
			streams, moved, elsewhere, late = 0, 0, nil, nil
			announced, named := d.announced(), d.named()
			for _, c := range all {
				if strconv.Itoa(int(c.VIP.Port())) != d.vars["streams"] {
					continue
				}
				streams++
				if c.Moves > 0 {
					moved++
				}
				of := probe.Connection{User: c.User, Port: c.VIP.Port()}
				if why := wentAsTold(d.paths.Of(of), c, named[of], announced[claimed{c.User, c.VIP, c.Tag}]); why != "" {
					late = append(late, fmt.Sprintf("%v: %s", c.User, why))
				}
				if want := d.places[d.web.owner(c.User.Addr())]; c.Destination != want {
					elsewhere = append(elsewhere, fmt.Sprintf("%v at %v, not at %v, after %d moves", c.User, c.Destination, want, c.Moves))
				}
			}
			return len(elsewhere)+len(late) == 0, nil
		})
		if err != nil {
			return err
		}
		status, err := clientstatus.Ask(ctx, d.socket(node))
		if err != nil {
			return err
		}
		d.hosts[node] = status
		d.check("streams of "+node+" are followed to who has them", streams > 0 && len(elsewhere) == 0,
			"%d streams, %d have moved, %d changes of destination followed by now; %d elsewhere after %v%s", streams, moved, status.Followed, len(elsewhere), followWithin, some(elsewhere))
		d.check("packets of "+node+" go where its streams are, and nowhere else since", streams > 0 && len(late) == 0, "%d streams, %d not%s", streams, len(late), some(late))
	}
	return nil
}

// claimed is a connection as messages name it.
type claimed struct {
	user, vip netip.AddrPort
	tag       uint16
}

// announced are the true messages that have passed the host on the path, in the order of their moves.
func (d *dyntcp) announced() map[claimed][]forger.Message {
	all := map[claimed][]forger.Message{}
	for _, m := range d.paths.Messages() {
		c, err := forger.Captured(m.Payload)
		if err != nil || m.From.Port() == forger.SourcePort {
			continue
		}
		of := claimed{c.User(), c.VIP(), c.Tag()}
		i, known := slices.BinarySearchFunc(all[of], c.Sequence(), func(m forger.Message, s uint64) int { return cmp.Compare(m.Sequence(), s) })
		if !known {
			all[of] = slices.Insert(all[of], i, c)
		}
	}
	return all
}

// named are the addresses of which SYN-ACKs said that connections live there.
func (d *dyntcp) named() map[probe.Connection]netip.Addr {
	all := map[probe.Connection]netip.Addr{}
	for _, h := range d.paths.Handshakes() {
		if o, ok := forger.FindOption(h.Answer); ok {
			all[h.Connection] = o.Destination.Addr()
		}
	}
	return all
}

// wentAsTold says what is wrong with where a connection's packets went: to the VIP, to where its SYN-ACK said that it is, and from there to where one
// move after the other led, though a move may have been over before there was a packet. Never back.
func wentAsTold(path []netip.Addr, c clientstatus.Connection, named netip.Addr, moves []forger.Message) string {
	if len(path) < 2 || path[0] != c.VIP.Addr() {
		return fmt.Sprintf("packets went to %v", path)
	}
	told := []netip.Addr{c.VIP.Addr(), named}
	for _, m := range moves {
		told = append(told, m.Destination().Addr())
	}
	at := 0
	for _, to := range path {
		i := slices.Index(told[at:], to)
		if i < 0 {
			return fmt.Sprintf("packets went to %v, though it moved so: %v", path, told)
		}
		at += i
	}
	if last := path[len(path)-1]; last != c.Destination.Addr() {
		return fmt.Sprintf("packets go to %v, and it is at %v", last, c.Destination)
	}
	return ""
}

// look notes a connection that is where no server is.
func (d *dyntcp) look(c clientstatus.Connection) {
	if c.Destination != c.VIP && (!d.isServer(c.Destination.Addr()) || c.Destination.Port() != c.VIP.Port()) {
		d.astray = append(d.astray, fmt.Sprintf("%v at %v", c.User, c.Destination))
	}
}

func (d *dyntcp) isServer(a netip.Addr) bool {
	for _, at := range d.places {
		if at.Addr() == a {
			return true
		}
	}
	return false
}

// strayed are connections of users with dynamic TCP of which a packet went to who is neither the VIP nor a server.
func (d *dyntcp) strayed() (astray []string) {
	if d.paths == nil {
		return nil
	}
	for c, path := range d.paths.All() {
		for _, to := range path {
			if to.String() != d.vars["vip"] && !d.isServer(to) {
				astray = append(astray, fmt.Sprintf("%v to %v", c.User, to))
			}
		}
	}
	return astray
}

// judgeHandshakes: what users' hosts asked for was answered with the same tag and cookie, and where a server is. The caller holds mu.
func (d *dyntcp) judgeHandshakes() {
	if d.paths == nil {
		return
	}
	var asked int
	var wrong []string
	for _, h := range d.paths.Handshakes() {
		request, is := forger.FindOption(h.Request)
		if !is {
			continue
		}
		asked++
		if why := answeredWrong(request, h, d.isServer); why != "" {
			wrong = append(wrong, fmt.Sprintf("%v: %s", h.User, why))
		}
	}
	d.check("SYN-ACKs have the tag and cookie of their SYN, and where a server is", asked > 0 && len(wrong) == 0, "%d SYNs with both, %d answered otherwise%s", asked, len(wrong), some(wrong))
}

// answeredWrong says what is wrong with the SYN-ACK to a request.
func answeredWrong(request forger.Option, h probe.Handshake, isServer func(netip.Addr) bool) string {
	answer, is := forger.FindOption(h.Answer)
	switch {
	case request.Destination.IsValid():
		return fmt.Sprintf("the SYN says that it is at %v", request.Destination)
	case !is:
		return "the SYN-ACK says nothing"
	case answer.Tag != request.Tag || answer.Cookie != request.Cookie:
		return fmt.Sprintf("tag %#x and cookie %#x answered with %#x and %#x", request.Tag, request.Cookie, answer.Tag, answer.Cookie)
	case !isServer(answer.Destination.Addr()) || answer.Destination.Port() != h.Port:
		return fmt.Sprintf("the SYN-ACK says that it is at %v", answer.Destination)
	}
	return ""
}

// until looks every 100 ms whether something is so.
func (d *dyntcp) until(ctx context.Context, within time.Duration, is func() (bool, error)) error {
	for deadline := time.Now().Add(within); ; {
		done, err := is()
		if done || err != nil || time.Now().After(deadline) {
			return err
		}
		if err := d.watchUntil(ctx, time.Now().Add(100*time.Millisecond)); err != nil {
			return err
		}
	}
}

// judgeConnections: none is broken, none is somebody else's, and all bytes are there. The caller holds mu.
func (d *dyntcp) judgeConnections() *report.DynTCP {
	r := &report.DynTCP{Handshake: report.NewHandshakes(d.plain, d.own)}
	d.judgeHandshakes()
	own, brokenOwn := d.tally.Carried(d.isExtended)
	plain, brokenPlain := d.tally.Carried(d.isPlain)
	r.Carried, r.Plain = own, plain
	r.RefusedBy = map[string]uint64{}
	for _, host := range d.hosts {
		r.Followed += host.Followed
		for why, n := range host.Refused {
			r.RefusedBy[why] += n
			r.Refused += n
		}
	}
	for _, of := range []struct {
		who  string
		got  report.Carried
		fail []traffic.Event
	}{{"users with dynamic TCP", own, brokenOwn}, {"plain users", plain, brokenPlain}} {
		rest, left := d.undisturbed(of.fail, true)
		d.check(of.who+": connections move and none is broken", of.got.Moves > 0 && len(rest) == 0,
			"%d moves of %d connections, %d broken, %d of them by standbys while the machine kept daemons from running, %d lost with their server%s",
			of.got.Moves, of.got.Connections, of.got.Broken, left, of.got.LostWithServer, d.examples(rest, d.tally.Timeline))
		d.check(of.who+": streams are whole, and go on at their new server", of.got.StreamsEnded > 0 && of.got.Switched > 0 && of.got.Whole(),
			"of %d bytes %d lost, %d doubled, %d reordered, %d garbled; %d streams told at their end what came; %d times another server went on",
			of.got.BytesReceived, of.got.BytesLost, of.got.BytesDoubled, of.got.BytesReordered, of.got.BytesGarbled, of.got.StreamsEnded, of.got.Switched)
	}
	foreign := d.tally.Foreign()
	astray := append(d.astray, d.strayed()...)
	r.Hijacked = len(foreign) + len(astray)
	d.check("no connection is hijacked", r.Hijacked == 0, "%d have bytes that no server wrote, %d went where no server is%s%s",
		len(foreign), len(astray), some(astray), d.examples(foreign, d.tally.Timeline))
	d.check("users' hosts follow moves", r.Followed > 0, "%d changes of destination", r.Followed)
	if a := d.attackers; a != nil {
		sent, off, refusedOff := a.harass.on+a.harass.off, a.harass.off, uint64(0)
		for why, n := range a.sent {
			sent += n
			if offPath()[why] {
				off += n
			}
		}
		for why := range offPath() {
			refusedOff += r.RefusedBy[why]
		}
		r.Attacks = sent
		d.check("all that attackers sent was refused", a.harass.on > 0 && r.Refused >= uint64(sent), "%d refused of at least %d, of these %d while users moved", r.Refused, sent, a.harass.on+a.harass.off)
		d.check("all that the attacker off the path sent was refused for what it is", a.harass.off > 0 && refusedOff >= uint64(off),
			"%d refused for such reasons, of at least %d, of these %d while users moved", refusedOff, off, a.harass.off)
	}
	d.check("handshakes are measured", r.Handshake.Count > 0, "p50 of %d each: plain %.0f us, with dynamic TCP %.0f us", r.Handshake.Count, r.Handshake.Plain, r.Handshake.Extended)
	d.o.Progress.Note("waits of paced streams around %d moves, beyond their pace: p50 %.2f ms, p99 %.2f ms, at most %.2f ms; while nothing moves: p50 %.2f ms, p99 %.2f ms, at most %.2f ms",
		own.Blackout.Count, own.Blackout.P50, own.Blackout.P99, own.Blackout.Max, own.Quiet.P50, own.Quiet.P99, own.Quiet.Max)
	return r
}
