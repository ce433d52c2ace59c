package igmp

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

type joinRow struct {
	Router    string   `json:"router"`
	Group     string   `json:"group"`
	Requester string   `json:"requester"`
	Port      string   `json:"port"`
	Owner     uint32   `json:"owner"`
	Epoch     string   `json:"epoch"`
	KeyID     string   `json:"key_id"`
	Permit    []string `json:"permit"`
	Deny      []string `json:"deny,omitempty"`
	Standby   []string `json:"standby,omitempty"`
	ExpiresMS int64    `json:"expires_ms"`
	Packets   uint64   `json:"packets"`
	Health    string   `json:"health,omitempty"` // of the requester on the control channel; empty: available
}

func newJoins(o *options) *cobra.Command {
	return o.verb("joins", "Show the admitted joins of private groups, and whom they are for", showJoins)
}

func showJoins(all []*igmpdv1.Status) (any, cmdutil.Table) {
	rows := []joinRow{}
	table := cmdutil.Table{Header: []string{"ROUTER", "GROUP", "REQUESTER", "PORT", "EPOCH", "EXPIRES", "PACKETS", "HEALTH", "USERS"}}
	for _, st := range all {
		for _, j := range st.Joins {
			rows = append(rows, joinRow{
				Router: st.Router, Group: j.Group, Requester: j.Requester, Port: j.Port, Owner: j.Owner, Epoch: j.Epoch, KeyID: j.KeyId,
				Permit: j.Permit, Deny: j.Deny, Standby: j.Standby, ExpiresMS: j.ExpiresMs, Packets: j.Packets, Health: j.Health,
			})
			table.Rows = append(table.Rows, []string{
				st.Router, j.Group, j.Requester, j.Port, j.Epoch, (time.Duration(j.ExpiresMs) * time.Millisecond).Round(100 * time.Millisecond).String(),
				fmt.Sprint(j.Packets), cmp.Or(j.Health, "available"), users(j),
			})
		}
	}
	return rows, table
}

// users says whom a join is for in one cell: the first portions, and how many more there are.
func users(j *igmpdv1.Join) string {
	const shown = 3
	text := strings.Join(j.Permit[:min(len(j.Permit), shown)], " ")
	if more := len(j.Permit) - shown; more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	if len(j.Deny) > 0 {
		text += fmt.Sprintf(" but %s", strings.Join(j.Deny[:min(len(j.Deny), shown)], " "))
		if more := len(j.Deny) - shown; more > 0 {
			text += fmt.Sprintf(" +%d", more)
		}
	}
	return text
}
