package tag

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// ldpPort is where sessions are; the other end's port is its connection's alone.
const ldpPort = 646

// detail makes `... detail`: write shows a router in FRR's lines; JSON and YAML have the rows of the table.
func (o *options) detail(
	short string, rows func(context.Context, way, []*tdpdv1.Answer) (any, cmdutil.Table, error), write func(io.Writer, *tdpdv1.Status),
) *cobra.Command {
	return o.asking("detail", short, func(ctx context.Context, w way, all []*tdpdv1.Answer) error {
		if o.factory.Output == "json" || o.factory.Output == "yaml" {
			value, table, err := rows(ctx, w, all)
			if err != nil {
				return err
			}
			return o.factory.Print(value, table)
		}
		var b strings.Builder
		for _, answer := range all {
			fmt.Fprintf(&b, "Router: %s\n\n", answer.GetRouter())
			write(&b, answer.GetStatus())
		}
		_, err := io.WriteString(o.factory.Out, b.String())
		return err
	})
}

// counted are the messages that FRR counts, as both call them.
var counted = []struct{ frr, ours string }{
	{"Keepalive", "KeepAlive"}, {"Address", "Address"}, {"Address Withdraw", "Address Withdraw"}, {"Notification", "Notification"},
	{"Capability", "Capability"}, {"Label Mapping", "Label Mapping"}, {"Label Request", "Label Request"}, {"Label Withdraw", "Label Withdraw"},
	{"Label Release", "Label Release"}, {"Label Abort Request", "Label Abort Request"},
}

// capabilities are those there are, in FRR's order: this router has all of them.
var capabilities = []struct{ ours, frr string }{
	{"dynamic", "Dynamic Announcement (0x0506)"}, {"typed-wildcard", "Typed Wildcard (0x050B)"}, {"unrecognized-notification", "Unrecognized Notification (0x0603)"},
}

func (f frr) neighborsDetail(w io.Writer, st *tdpdv1.Status) {
	for _, n := range st.GetNeighbors() {
		hold := n.GetAgreed().GetKeepaliveMs() / 1000
		fmt.Fprintf(w, "Peer LDP Identifier: %s\n", n.GetId())
		fmt.Fprintf(w, "  TCP connection: %s\n", tcp(n))
		fmt.Fprintf(w, "  Authentication: %s\n", map[bool]string{true: "TCP MD5 Signature", false: "none"}[n.GetMd5()])
		fmt.Fprintf(w, "  Session Holdtime: %d secs; KeepAlive interval: %d secs\n", hold, hold/3)
		fmt.Fprintf(w, "  State: %s; Downstream-Unsolicited\n", n.GetState())
		fmt.Fprintf(w, "  Up time: %s\n", uptime(n))
		fmt.Fprintf(w, "  Messages sent/rcvd:\n")
		for _, m := range counted {
			fmt.Fprintf(w, "   - %s Messages: %d/%d\n", m.frr, n.GetSent()[m.ours], n.GetReceived()[m.ours])
		}
		writeCapabilities(w, n.GetAgreed())
		fmt.Fprintf(w, "  LDP Discovery Sources:\n")
		writeSources(w, n, "ipv4", "IPv4")
		writeSources(w, n, "ipv6", "IPv6")
		fmt.Fprintln(w)
	}
}

// tcp is the connection, with the port that is known: who is passive has LDP's.
func tcp(n *tdpdv1.Neighbor) string {
	local, remote := orDash(n.GetLocal()), orDash(n.GetRemote())
	if n.GetRole() == "passive" {
		return fmt.Sprintf("%s:%d - %s", local, ldpPort, remote)
	}
	return fmt.Sprintf("%s - %s:%d", local, remote, ldpPort)
}

func writeCapabilities(w io.Writer, agreed *tdpdv1.Agreed) {
	fmt.Fprintf(w, "  Capabilities Sent:\n")
	for _, c := range capabilities {
		fmt.Fprintf(w, "   - %s\n", c.frr)
	}
	fmt.Fprintf(w, "  Capabilities Received:\n")
	for _, c := range capabilities {
		if slices.Contains(agreed.GetCapabilities(), c.ours) {
			fmt.Fprintf(w, "   - %s\n", c.frr)
		}
	}
}

// writeSources are the ways by which a neighbor's hellos of a family come.
func writeSources(w io.Writer, n *tdpdv1.Neighbor, family, title string) {
	for _, a := range n.GetAdjacencies() {
		if _, is := (frr{family}).of(a.GetSource()); !is {
			continue
		}
		if title != "" {
			fmt.Fprintf(w, "    %s:\n", title)
			title = ""
		}
		if a.GetInterface() == "" {
			fmt.Fprintf(w, "      Targeted Hello: %s\n", a.GetSource())
		} else {
			fmt.Fprintf(w, "      Interface: %s\n", a.GetInterface())
		}
	}
}

func (f frr) discoveryDetail(w io.Writer, st *tdpdv1.Status) {
	fmt.Fprintf(w, "Local:\n  LSR Id: %s:0\n", st.GetRouterId())
	for _, a := range st.GetAddresses() {
		title := "IPv4"
		if family, _ := f.of(a); family == "ipv6" {
			title = "IPv6"
		}
		fmt.Fprintf(w, "  Transport Address (%s): %s\n", title, a)
	}
	fmt.Fprintf(w, "Discovery Sources:\n  Interfaces:\n")
	for _, i := range st.GetInterfaces() {
		if f.family == "" || f.family == "ipv4" && i.GetIpv4() || f.family == "ipv6" && i.GetIpv6() {
			f.writeHellos(w, st, i.GetName(), func(a *tdpdv1.Adjacency) bool { return a.GetInterface() == i.GetName() })
		}
	}
	fmt.Fprintf(w, "  Targeted Hellos:\n")
	for _, n := range st.GetNeighbors() {
		for _, a := range n.GetAdjacencies() {
			if _, is := f.of(a.GetSource()); is && a.GetInterface() == "" {
				f.writeHellos(w, st, localOf(st, a.GetSource())+" -> "+a.GetSource(), func(b *tdpdv1.Adjacency) bool { return b == a })
			}
		}
	}
	fmt.Fprintln(w)
}

// localOf is the router's transport address of the family of another address.
func localOf(st *tdpdv1.Status, other string) string {
	want, _ := (frr{}).of(other)
	for _, a := range st.GetAddresses() {
		if family, _ := (frr{}).of(a); family == want {
			return a
		}
	}
	return "-"
}

// writeHellos are the adjacencies of a source.
func (f frr) writeHellos(w io.Writer, st *tdpdv1.Status, source string, from func(*tdpdv1.Adjacency) bool) {
	var b strings.Builder
	for _, n := range st.GetNeighbors() {
		for _, a := range n.GetAdjacencies() {
			if _, is := f.of(a.GetSource()); !is || !from(a) {
				continue
			}
			fmt.Fprintf(&b, "      LSR Id: %s\n", n.GetId())
			fmt.Fprintf(&b, "          Source address: %s\n", a.GetSource())
			fmt.Fprintf(&b, "          Transport address: %s\n", a.GetTransport())
			fmt.Fprintf(&b, "          Hello hold time: %s (due in %s)\n", secs(a.GetHoldMs()), secs(a.GetLeftMs()))
			fmt.Fprintf(&b, "          Dual-stack capability TLV: %s\n", yes(a.GetDualStack()))
		}
	}
	if b.Len() == 0 {
		source += ": (no adjacencies)"
	} else {
		source += ":"
	}
	fmt.Fprintf(w, "    %s\n%s", source, b.String())
}

func secs(ms int64) string {
	if ms < 0 {
		return hold(ms)
	}
	return hold(ms) + " secs"
}
