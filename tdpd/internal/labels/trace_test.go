package labels_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

var update = flag.Bool("update", false, "write what comes out into the traces")

// trace is a Labels under a script. Every file of testdata is some scripts: "==" begins one, with a Labels of its own; behind an event
// stand, indented, the actions that it has. testdata/README tells the words.
type trace struct {
	l   *labels.Labels
	now time.Time
}

// TestTraces plays the traces. With -update it writes down what comes out: read it against the RFCs before you keep it.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no traces: ", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want := string(must(os.ReadFile(name)))
			got := play(want)
			if *update && got != want {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, strings.Split(got, "\n"), strings.Split(want, "\n"))
		})
	}
}

// compare tells the first difference, with the script that it is in.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	script := ""
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if strings.HasPrefix(w, "==") {
			script = w
		}
		if g != w {
			t.Fatalf("%s\nline %d, behind\n%s\ngot\n%s\nwant\n%s", script, i+1, strings.Join(want[max(0, i-4):min(i, len(want))], "\n"), g, w)
		}
	}
}

// play has the events of a file happen, and returns the file with what comes out in place of what is to.
func play(file string) string {
	var out []string
	x := &trace{}
	for _, line := range strings.Split(file, "\n") {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out = append(out, line)
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || line[0] == '#':
		case words[0] == "==":
			x = &trace{l: must(labels.New(labels.Config{LSR: peerID("1.1.1.1").LSR})), now: start}
		default:
			for _, text := range x.do(words) {
				out = append(out, "    "+text)
			}
		}
	}
	return strings.Join(out, "\n")
}

func (x *trace) do(words []string) []string {
	var actions []labels.Action
	switch rest := words[1:]; words[0] {
	case "config":
		x.l = must(labels.New(parseConfig(rest)))
	case "up":
		actions = x.l.Up(x.now, parsePeer(rest))
	case "down":
		p := parsePeer(rest)
		actions = x.l.Down(x.now, p.ID, p.Agreed.Restart)
	case "adjacencies":
		p := parsePeer(rest)
		actions = x.l.Adjacencies(x.now, p.ID, p.Adjacencies)
	case "from":
		actions = x.l.Message(x.now, peerID(rest[0]), parseMessage(rest[1:]))
	case "addresses":
		var list []netip.Addr
		for _, a := range rest {
			list = append(list, netip.MustParseAddr(a))
		}
		actions = x.l.Addresses(x.now, list)
	case "at":
		x.now = start.Add(must(time.ParseDuration(rest[0])))
		actions = x.l.Tick(x.now)
	default:
		return x.more(words)
	}
	return texts(actions)
}

func texts(actions []labels.Action) (out []string) {
	for _, a := range actions {
		out = append(out, actionText(a))
	}
	return out
}

// more is routes and questions.
func (x *trace) more(words []string) []string {
	switch rest := words[1:]; words[0] {
	case "transit", "attached", "server":
		return texts(x.l.Routes(x.now, []labels.Route{parseRoute(words)}, nil))
	case "gone":
		return texts(x.l.Routes(x.now, nil, []netip.Prefix{netip.MustParsePrefix(rest[0])}))
	case "restore": // for TIME PREFIX=LABEL... LABEL...
		had, others := map[netip.Prefix]wire.Label{}, []wire.Label{}
		for _, w := range rest[1:] {
			if p, label, of := strings.Cut(w, "="); of {
				had[netip.MustParsePrefix(p)] = wire.Label(number(label))
			} else {
				others = append(others, wire.Label(number(w)))
			}
		}
		return texts(x.l.Restore(x.now, had, others, must(time.ParseDuration(rest[0]))))
	case "tunnels":
		all := map[netip.Addr][]labels.NextHop{}
		for _, w := range rest {
			far, hop, _ := strings.Cut(w, "=")
			all[netip.MustParseAddr(far)] = append(all[netip.MustParseAddr(far)], parseHop(hop))
		}
		return texts(x.l.Tunnels(x.now, all))
	case "reserve":
		var all []wire.Label
		for _, w := range rest {
			all = append(all, wire.Label(number(w)))
		}
		return texts(x.l.Reserve(x.now, all))
	case "next":
		if next := x.l.Next(); !next.IsZero() {
			return []string{next.Sub(start).String()}
		}
		return []string{"never"}
	case "view":
		return []string{viewText(x.l, netip.MustParsePrefix(rest[0]))}
	case "bindings":
		return bindingsText(x.l.Bindings(netip.MustParsePrefix(rest[0])))
	case "stats":
		return []string{strings.Trim(fmt.Sprintf("%+v", x.l.Stats()), "{}")}
	case "peers":
		var out []string
		for _, p := range x.l.Peers() {
			out = append(out, strings.Trim(fmt.Sprintf("%+v", p), "{}"))
		}
		return out
	}
	panic("event " + words[0])
}

func parseRoute(words []string) labels.Route {
	r := labels.Route{Prefix: netip.MustParsePrefix(words[1])}
	for r.Kind.String() != words[0] {
		r.Kind++
	}
	for _, w := range words[2:] {
		if w == "tunneled" {
			r.Tunneled = true
			continue
		}
		r.NextHops = append(r.NextHops, parseHop(w))
	}
	return r
}

func parseHop(w string) labels.NextHop {
	address, iface, _ := strings.Cut(w, "@")
	return labels.NextHop{Address: netip.MustParseAddr(address), Interface: iface, Index: int(iface[len(iface)-1] - '0')}
}

func parseConfig(words []string) labels.Config {
	c := labels.Config{LSR: peerID("1.1.1.1").LSR}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "ordered":
			c.Ordered = true
		case "transport":
			c.Transports = append(c.Transports, netip.MustParseAddr(value))
		case "explicit-null":
			c.ExplicitNull = true
		case "loops":
			c.LoopDetection = true
		case "no-helper":
			c.NoHelper = true
		case "labels":
			c.First, c.Last = 16, wire.Label(15+number(value))
		case "bindings":
			c.MaxBindings = int(number(value))
		case "all-bindings":
			c.AllBindings = int(number(value))
		case "addresses":
			c.MaxAddresses = int(number(value))
		case "hop-limit":
			c.HopLimit = uint8(number(value))
		case "path-limit":
			c.PathLimit = uint8(number(value))
		case "allocate":
			c.Allocate = netip.MustParsePrefix(value).Overlaps
		case "advertise", "accept": // peer:prefix
			id, p, _ := strings.Cut(value, ":")
			let := func(fec netip.Prefix, of wire.Identifier) bool {
				return of != peerID(id) || netip.MustParsePrefix(p).Overlaps(fec)
			}
			if name == "accept" {
				c.Accept = let
			} else {
				c.Advertise = let
			}
		default:
			panic("config " + w)
		}
	}
	return c
}

func labelText(l wire.Label) string {
	if l == labels.NoLabel {
		return "none"
	}
	return fmt.Sprint(uint32(l))
}

func viewText(l *labels.Labels, p netip.Prefix) string {
	v, routed := l.View(p)
	if !routed {
		return "no route"
	}
	out := fmt.Sprint(v.Kind, " ", labelText(v.Local))
	if v.Leaving != labels.NoLabel {
		out += fmt.Sprint(" not ", labelText(v.Leaving))
	}
	for _, h := range v.Hops {
		out += fmt.Sprint(", ", h.Address, "@", h.Interface)
		if h.Peer != (wire.Identifier{}) {
			out += fmt.Sprint(" of ", h.Peer.LSR)
		}
		out += " label " + labelText(h.Label)
		if h.Tunnel.IsValid() {
			out += fmt.Sprint(" in UDP to ", h.Tunnel)
		}
	}
	return out
}

func bindingsText(b labels.Bindings) []string {
	out := []string{"local " + labelText(b.Local)}
	for _, r := range b.Remote {
		line := fmt.Sprint("remote ", labelText(r.Label), " of ", r.Peer.LSR)
		for _, word := range slices.DeleteFunc([]string{map[bool]string{true: "used"}[r.InUse], map[bool]string{true: "stale"}[r.Stale]}, func(s string) bool { return s == "" }) {
			line += " " + word
		}
		out = append(out, line)
	}
	for _, s := range b.Sent {
		line := fmt.Sprint("sent ", labelText(s.Label), " to ", s.Peer.LSR)
		if s.Leaves {
			line += " withdrawn"
		}
		out = append(out, line)
	}
	return out
}
