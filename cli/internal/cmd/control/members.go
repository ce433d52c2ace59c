package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
	controlv1 "github.com/manycast/manycast/proto/control/v1"
)

// gather is how long answers are collected.
const gather = 500 * time.Millisecond

// subjects are where members are asked.
var subjects = []string{"lbd.control.members", "igmpd.control.members", "tdpd.control.members"}

func newMembers(f *cmdutil.Factory) *cobra.Command {
	of := ""
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Show whom members of the control channel hear",
		Long: `Show whom members of the control channel hear, and how those say they are. Asked over the bus are all who lead and all routers, or
one member with --of. Where two do not hear the same, something between them loses frames.`,
		Example: "  manycast control members\n  manycast control members --of s1 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.Bus(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			answers, err := ask(cmd.Context(), c, of, f.Timeout)
			if err != nil {
				return err
			}
			value, table := show(answers)
			return f.Print(value, table)
		},
	}
	cmd.Flags().StringVar(&of, "of", "", "ask this member alone")
	return cmd
}

// ask collects the answers of one member, or of those who answer for all.
func ask(ctx context.Context, c *bus.Conn, of string, timeout time.Duration) ([]*controlv1.MembersAnswer, error) {
	suffix, most, wait := "", 0, gather
	if of != "" {
		suffix, most, wait = "."+strings.ReplaceAll(of, ".", "-"), 1, timeout
	}
	var all []*controlv1.MembersAnswer
	var failed []error
	for _, subject := range subjects {
		ctx, cancel := context.WithTimeout(ctx, wait)
		err := c.RequestMany(ctx, subject+suffix, &controlv1.MembersRequest{}, most, func(m bus.Msg) {
			a := &controlv1.MembersAnswer{}
			if err := proto.Unmarshal(m.Data, a); err != nil {
				failed = append(failed, fmt.Errorf("answer to %s: %w", subject, err))
				return
			}
			all = append(all, a)
		})
		cancel()
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	if len(all) == 0 && of != "" {
		return nil, fmt.Errorf("%s does not answer: it is not on the bus, or has no [control] group", of)
	}
	if len(all) == 0 {
		return nil, errors.New("no router and nobody who leads is on a control channel and on the bus: set [control] group, or ask a server with --of")
	}
	slices.SortFunc(all, func(a, b *controlv1.MembersAnswer) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all, nil
}

type row struct {
	Of      string   `json:"of"`
	Member  string   `json:"member"`
	Role    string   `json:"role"`
	Leader  bool     `json:"leader"`
	Address string   `json:"address"`
	Health  string   `json:"health"`
	Why     string   `json:"why,omitempty"`
	Via     []string `json:"via"`
	HeardMS int64    `json:"heard_ms"` // -1: not yet, known from before a restart
	SinceMS int64    `json:"since_ms"`
}

type answer struct {
	Members []row                        `json:"members"`
	Refused map[string]map[string]uint64 `json:"refused"` // frames, by who refused them and why
}

func show(all []*controlv1.MembersAnswer) (answer, cmdutil.Table) {
	out := answer{Members: []row{}, Refused: make(map[string]map[string]uint64)}
	table := cmdutil.Table{Header: []string{"OF", "MEMBER", "ROLE", "ADDRESS", "HEALTH", "FOR", "HEARD", "VIA", "WHY"}}
	for _, a := range all {
		out.Refused[a.GetName()] = a.GetRefused()
		for _, m := range a.GetMembers() {
			r := row{
				a.GetName(), m.GetName(), m.GetRole(), m.GetLeader(), m.GetAddress(), m.GetHealth(), m.GetWhy(), m.GetVia(), m.GetHeardMs(), m.GetSinceMs(),
			}
			out.Members = append(out.Members, r)
			role := r.Role
			if r.Leader {
				role += ", leader"
			}
			table.Rows = append(table.Rows, []string{
				r.Of, r.Member, role, r.Address, r.Health, ago(r.SinceMS, time.Second), ago(r.HeardMS, time.Millisecond), strings.Join(r.Via, ","), r.Why,
			})
		}
	}
	return out, table
}

// ago is a time in one cell.
func ago(ms int64, round time.Duration) string {
	if ms < 0 {
		return "-"
	}
	return (time.Duration(ms) * time.Millisecond).Round(round).String()
}
