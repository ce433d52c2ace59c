package labels_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// This file reads and writes messages and actions as the traces in testdata have them. What is wrong there panics.

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func number(s string) uint32 { return uint32(must(strconv.ParseUint(s, 10, 32))) }

func pointer(s string) *uint32 {
	n := number(s)
	return &n
}

func peerID(s string) wire.Identifier {
	return wire.Identifier{LSR: netip.MustParseAddr(s).As4()}
}

func parsePath(s string) (path []wire.LSRID) {
	for _, id := range strings.Split(s, ",") {
		path = append(path, peerID(id).LSR)
	}
	return path
}

// wildcards by name.
var wildcards = map[string]wire.FECElement{
	"all": wire.Wildcard{}, "all-ipv4": wire.TypedWildcard{Family: wire.IPv4}, "all-ipv6": wire.TypedWildcard{Family: wire.IPv6},
}

// parseFEC reads prefixes with + between them, or a wildcard.
func parseFEC(s string) (f wire.FEC) {
	if w := wildcards[s]; w != nil {
		return wire.FEC{w}
	}
	for _, p := range strings.Split(s, "+") {
		f = append(f, wire.Prefix{Prefix: netip.MustParsePrefix(p)})
	}
	return f
}

func fecText(f wire.FEC) string {
	var out []string
	for _, e := range f {
		text := e.String()
		for name, w := range wildcards {
			if w == e {
				text = name
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "+")
}

// fields are what stands behind a message's name and FEC: a label, and words with values.
type fields struct {
	label *wire.Label
	words map[string]string
}

func parseFields(words []string) fields {
	f := fields{words: map[string]string{}}
	for i := 0; i < len(words); i++ {
		if n, err := strconv.ParseUint(words[i], 10, 32); err == nil {
			label := wire.Label(n)
			f.label = &label
			continue
		}
		f.words[words[i]] = words[i+1]
		i++
	}
	return f
}

func (f fields) head() wire.Head {
	if id, is := f.words["id"]; is {
		return wire.Head{ID: number(id)}
	}
	return wire.Head{}
}

func (f fields) attributes() (hops *uint8, path []wire.LSRID) {
	if n, is := f.words["hops"]; is {
		h := uint8(number(n))
		hops = &h
	}
	if p, is := f.words["path"]; is {
		path = parsePath(p)
	}
	return hops, path
}

// status has - for blanks.
func (f fields) status() *wire.Status {
	name, is := f.words["status"]
	if !is {
		return nil
	}
	for c := wire.StatusSuccess; ; c++ {
		if strings.ReplaceAll(c.String(), " ", "-") == name {
			s := wire.NewStatus(c)
			if about, is := f.words["about"]; is {
				s.MessageID = number(about)
			}
			return &s
		}
	}
}

func parseMessage(words []string) wire.Message {
	switch kind := words[0]; kind {
	case "address", "address-withdraw":
		list := wire.AddressList{Family: wire.FamilyOf(netip.MustParseAddr(words[1]))}
		for _, a := range words[1:] {
			list.Addresses = append(list.Addresses, netip.MustParseAddr(a))
		}
		if kind == "address" {
			return wire.Address{AddressList: list}
		}
		return wire.AddressWithdraw{AddressList: list}
	case "notify":
		f := parseFields(words[1:])
		m := wire.Notification{Head: f.head(), Status: *f.status()}
		if fec, is := f.words["fec"]; is {
			m.FEC = parseFEC(fec)
		}
		return m
	case "capability":
		return wire.Capability{Capabilities: []wire.CapabilityParameter{{Type: capabilities[words[1]], Enabled: words[2] == "on"}}}
	}
	return parseLabelMessage(words)
}

var capabilities = map[string]wire.TLVType{"typed": wire.TLVTypedWildcardCapability, "end-of-lib": wire.TLVUnrecognizedNotification}

func parseLabelMessage(words []string) wire.Message {
	fec, f := parseFEC(words[1]), parseFields(words[2:])
	switch words[0] {
	case "mapping":
		m := wire.LabelMapping{Head: f.head(), FEC: fec, Label: *f.label}
		m.HopCount, m.PathVector = f.attributes()
		if id, is := f.words["request"]; is {
			m.RequestID = pointer(id)
		}
		return m
	case "request":
		m := wire.LabelRequest{Head: f.head(), FEC: fec}
		m.HopCount, m.PathVector = f.attributes()
		return m
	case "withdraw":
		return wire.LabelWithdraw{Head: f.head(), FEC: fec, Label: f.label}
	case "release":
		return wire.LabelRelease{Head: f.head(), FEC: fec, Label: f.label, Status: f.status()}
	case "abort":
		return wire.LabelAbortRequest{Head: f.head(), FEC: fec, RequestID: number(f.words["request"])}
	}
	panic("message " + words[0])
}

func statusText(s wire.Status) string {
	out := " status " + strings.ReplaceAll(s.Code.String(), " ", "-")
	if s.MessageID != 0 {
		out += fmt.Sprintf(" about %d", s.MessageID)
	}
	return out
}

func attributesText(hops *uint8, path []wire.LSRID) (out string) {
	if hops != nil {
		out = fmt.Sprintf(" hops %d", *hops)
	}
	if path != nil {
		out += " path " + strings.ReplaceAll(strings.Trim(fmt.Sprint(path), "[]"), " ", ",")
	}
	return out
}

func optional[T any](name string, v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(name, *v)
}

func addressesText(list wire.AddressList) string {
	return strings.Trim(fmt.Sprint(list.Addresses), "[]")
}

func messageText(m wire.Message) string {
	out := ""
	switch m := m.(type) {
	case wire.Address:
		out = "address " + addressesText(m.AddressList)
	case wire.AddressWithdraw:
		out = "address-withdraw " + addressesText(m.AddressList)
	case wire.Notification:
		out = "notify" + statusText(m.Status) + optional(" request ", m.RequestID)
		if m.FEC != nil {
			out += " fec " + fecText(m.FEC)
		}
	case wire.LabelMapping:
		out = fmt.Sprint("mapping ", fecText(m.FEC), " ", uint32(m.Label), optional(" request ", m.RequestID)) +
			attributesText(m.HopCount, m.PathVector)
	case wire.LabelRequest:
		out = "request " + fecText(m.FEC) + attributesText(m.HopCount, m.PathVector)
	case wire.LabelWithdraw:
		out = "withdraw " + fecText(m.FEC) + optional(" ", (*uint32)(m.Label))
	case wire.LabelRelease:
		out = "release " + fecText(m.FEC) + optional(" ", (*uint32)(m.Label))
		if m.Status != nil {
			out += statusText(*m.Status)
		}
	case wire.LabelAbortRequest:
		out = fmt.Sprint("abort ", fecText(m.FEC), " request ", m.RequestID)
	default:
		panic(fmt.Sprintf("%T", m))
	}
	if m.MessageID() != 0 {
		out += fmt.Sprint(" id ", m.MessageID())
	}
	return out
}

func actionText(a labels.Action) string {
	switch a := a.(type) {
	case labels.Say:
		return fmt.Sprint("to ", a.Peer.LSR, " ", messageText(a.Message))
	case labels.Changed:
		return "changed " + strings.Trim(fmt.Sprint(a.FECs), "[]")
	case labels.Warn:
		return strings.TrimPrefix(fmt.Sprint("warn ", a.Peer.LSR, " ", a.Text), "warn 0.0.0.0 ")
	case labels.Freed:
		return fmt.Sprint("freed ", a.FEC, " ", uint32(a.Label))
	case labels.Recovered:
		return "recovered"
	case labels.Event:
		out := fmt.Sprint(a.What, " ", a.FEC, " ", uint32(a.Label))
		if a.Peer != (wire.Identifier{}) {
			out += fmt.Sprint(" of ", a.Peer.LSR)
		}
		return out
	}
	panic(fmt.Sprintf("%T", a))
}

// parsePeer reads "ID interface/source... [dual] [loops] [typed] [end-of-lib] [restart reconnect,recovery]".
func parsePeer(words []string) labels.Peer {
	p := labels.Peer{ID: peerID(words[0])}
	dual := wire.PreferNone
	for i := 1; i < len(words); i++ {
		w := words[i]
		iface, source, adjacent := strings.Cut(w, "/")
		switch {
		case adjacent && iface == "targeted":
			p.Adjacencies = append(p.Adjacencies, discovery.Adjacency{Where: discovery.Where{Source: netip.MustParseAddr(source)}})
		case adjacent:
			p.Adjacencies = append(p.Adjacencies, discovery.Adjacency{Where: discovery.Where{Interface: iface, Source: netip.MustParseAddr(source)}})
		case w == "dual":
			dual = wire.PreferIPv6
		case w == "loops":
			p.Agreed.LoopDetection = true
		case w == "restart":
			i++
			p.Agreed.Restart = parseRestart(words[i])
		default:
			p.Agreed.Capabilities = append(p.Agreed.Capabilities, wire.CapabilityParameter{Type: capabilities[w], Enabled: true})
		}
	}
	for i := range p.Adjacencies {
		p.Adjacencies[i].Preference = dual
	}
	return p
}

func parseRestart(s string) *wire.FTSession {
	reconnect, recovery, _ := strings.Cut(s, ",")
	return &wire.FTSession{
		LearnFromNetwork: true,
		ReconnectTimeout: must(time.ParseDuration(reconnect)), RecoveryTime: must(time.ParseDuration(recovery)),
	}
}
