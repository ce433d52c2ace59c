package tag

import (
	"strings"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// hopRow is a next hop and what is done to the labels of packets to it.
type hopRow struct {
	Operation string  `json:"operation,omitempty"` // swap, pop, push, keep; none: no label is bound
	Label     *uint32 `json:"label,omitempty"`
	Via       string  `json:"via,omitempty"` // none: the router takes the packet in itself
	Interface string  `json:"interface,omitempty"`
	Neighbor  string  `json:"neighbor,omitempty"`
	Tunnel    string  `json:"tunnel,omitempty"` // the label crosses to this address in UDP
}

func hopsOf(list []*tdpdv1.NextHop) []hopRow {
	out := []hopRow{}
	for _, h := range list {
		out = append(out, hopRow{h.GetOperation(), h.Label, h.GetVia(), h.GetInterface(), h.GetNeighbor(), h.GetTunnel()})
	}
	return out
}

// does is the operation with its label in one cell.
func (h hopRow) does() string {
	if h.Label == nil {
		return orDash(h.Operation)
	}
	return h.Operation + " " + labelText(h.Label)
}

// to is the next hop in one cell.
func (h hopRow) to() string {
	if h.Via == "" {
		return orDash(strings.TrimSpace("here " + h.Interface))
	}
	to := h.Via
	if h.Interface != "" {
		to += "%" + h.Interface
	}
	if h.Tunnel != "" {
		return h.Tunnel + " in UDP by " + to
	}
	return to
}
