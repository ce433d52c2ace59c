package tag

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

type adjacencyRow struct {
	Interface string `json:"interface,omitempty"` // none: targeted
	Source    string `json:"source"`
	Transport string `json:"transport"`
	HoldMS    int64  `json:"hold_ms"` // -1: for ever
	LeftMS    int64  `json:"left_ms"`
	SinceMS   int64  `json:"since_ms"`
	DualStack bool   `json:"dual_stack"` // the neighbor says which family it prefers
}

type agreedRow struct {
	KeepaliveMS   int64    `json:"keepalive_ms"`
	MaxPDU        uint32   `json:"max_pdu"`
	LoopDetection bool     `json:"loop_detection"`
	Capabilities  []string `json:"capabilities"`
	ReconnectMS   int64    `json:"reconnect_ms"` // -1: no graceful restart
	RecoveryMS    int64    `json:"recovery_ms"`
}

type neighborRow struct {
	Router      string            `json:"router"`
	Neighbor    string            `json:"neighbor"`
	State       string            `json:"state"`
	StateMS     int64             `json:"state_ms"`
	Role        string            `json:"role,omitempty"`
	Local       string            `json:"local,omitempty"`
	Remote      string            `json:"remote,omitempty"`
	MD5         bool              `json:"md5"`
	GTSM        bool              `json:"gtsm"`
	Agreed      *agreedRow        `json:"agreed,omitempty"`
	Adjacencies []adjacencyRow    `json:"adjacencies"`
	Families    []string          `json:"families"`
	Bindings    uint32            `json:"bindings"`
	Full        bool              `json:"full"`
	Addresses   uint32            `json:"addresses"`
	Restarting  bool              `json:"restarting"`
	Ups         uint64            `json:"ups"`
	Downs       uint64            `json:"downs"`
	LastDown    string            `json:"last_down,omitempty"`
	Sent        map[string]uint64 `json:"sent"`
	Received    map[string]uint64 `json:"received"`
}

func newNeighbors(o *options) *cobra.Command {
	return o.verb("neighbors", "Show routers' neighbors and the sessions with them", showNeighbors)
}

func showNeighbors(_ context.Context, _ way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
	rows := []neighborRow{}
	table := cmdutil.Table{Header: []string{"ROUTER", "NEIGHBOR", "STATE", "FOR", "ADDRESS", "VIA", "BINDINGS", "UPS", "LAST DOWN"}}
	for _, answer := range all {
		for _, n := range answer.GetStatus().GetNeighbors() {
			r := neighborOf(answer.GetRouter(), n)
			rows = append(rows, r)
			state := r.State
			if r.Restarting {
				state = "restarts, " + state
			}
			var via []string
			for _, a := range r.Adjacencies { // of both families it comes by one interface
				if name := orTargeted(a.Interface); !slices.Contains(via, name) {
					via = append(via, name)
				}
			}
			table.Rows = append(table.Rows, []string{
				r.Router, r.Neighbor, state, since(r.StateMS), orDash(r.Remote), orDash(strings.Join(via, ",")), count(r.Bindings), count(r.Ups), orDash(r.LastDown),
			})
		}
	}
	return rows, table, nil
}

func neighborOf(router string, n *tdpdv1.Neighbor) neighborRow {
	r := neighborRow{
		Router: router, Neighbor: n.GetId(), State: n.GetState(), StateMS: n.GetStateMs(), Role: n.GetRole(), Local: n.GetLocal(), Remote: n.GetRemote(),
		MD5: n.GetMd5(), GTSM: n.GetGtsm(), Adjacencies: []adjacencyRow{}, Families: n.GetFamilies(), Bindings: n.GetBindings(), Full: n.GetFull(),
		Addresses: n.GetAddresses(), Restarting: n.GetRestarting(), Ups: n.GetUps(), Downs: n.GetDowns(), LastDown: n.GetLastDown(),
		Sent: n.GetSent(), Received: n.GetReceived(),
	}
	for _, a := range n.GetAdjacencies() {
		r.Adjacencies = append(r.Adjacencies, adjacencyRow{a.GetInterface(), a.GetSource(), a.GetTransport(), a.GetHoldMs(), a.GetLeftMs(), a.GetSinceMs(), a.GetDualStack()})
	}
	if a := n.GetAgreed(); a != nil {
		r.Agreed = &agreedRow{a.GetKeepaliveMs(), a.GetMaxPdu(), a.GetLoopDetection(), a.GetCapabilities(), a.GetReconnectMs(), a.GetRecoveryMs()}
	}
	return r
}

func orTargeted(iface string) string {
	if iface == "" {
		return "targeted"
	}
	return iface
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
