// Package director is `manycast director`: the routers where users come in, and what they announce.
package director

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/routers"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// New returns `manycast director`.
func New(f *cmdutil.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "director",
		Aliases: []string{"directors"},
		Short:   "Directors: the routers where users come in, and the VIPs that they announce by BGP",
	}
	cmd.AddCommand(newShow(f), newDrain(f), newUndrain(f))
	return cmd
}

// verb asks one router, which may change it first, and may wait for what comes of that.
type verb struct {
	factory *cmdutil.Factory
	request *tdpdv1.AnnounceRequest
	wait    bool
	until   string // phase that is waited for
}

func (v *verb) command(use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: use + " ROUTER", Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return v.run(cmd.Context(), args[0]) },
	}
}

func (v *verb) waitFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&v.wait, "wait", false, "wait until it has come that far; --timeout is how much longer than it says")
}

func (v *verb) run(ctx context.Context, router string) error {
	w, err := routers.Open(ctx, v.factory, "")
	if err != nil {
		return err
	}
	defer w.Close()
	a, err := routers.Announce(ctx, w, router, v.request)
	if err == nil && v.wait {
		a, err = routers.Follow(ctx, w, router, a, v.until, v.factory.Timeout, func(text string) { fmt.Fprintln(v.factory.Err, text) })
	}
	if a.GetPhase() == "" {
		return err
	}
	return errors.Join(v.print(router, a), err)
}

type row struct {
	Router    string `json:"router"`
	Phase     string `json:"phase"`
	Waits     string `json:"waits_for"`
	Drained   bool   `json:"drained"`
	Forced    bool   `json:"forced"`
	VIP       string `json:"vip,omitempty"`
	Announced bool   `json:"announced"`
	Reach     string `json:"reach,omitempty"`
	DampedMs  int64  `json:"damped_ms,omitempty"`
	Flaps     uint64 `json:"flaps,omitempty"`
}

func (v *verb) print(router string, a *tdpdv1.Announced) error {
	one := row{Router: router, Phase: a.GetPhase(), Waits: a.GetWaits(), Drained: a.GetDrained(), Forced: a.GetForced()}
	rows := []row{}
	for _, vip := range a.GetVips() {
		r := one
		r.VIP, r.Announced, r.Reach, r.DampedMs, r.Flaps = vip.GetAddress(), vip.GetAnnounced(), vip.GetReach(), vip.GetDampedMs(), vip.GetFlaps()
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		rows = append(rows, one)
	}
	t := cmdutil.Table{Header: []string{"ROUTER", "PHASE", "WAITS FOR", "VIP", "ANNOUNCED", "WHY"}}
	for _, r := range rows {
		announced, vip, why := "no", r.VIP, []string{r.Reach}
		if r.Announced {
			announced = "yes"
		}
		if vip == "" {
			vip, announced, why = "-", "-", []string{"no VIP may be announced here"}
		}
		if r.DampedMs > 0 {
			why = append(why, fmt.Sprintf("out for %v after %d flaps", (time.Duration(r.DampedMs)*time.Millisecond).Round(time.Second/10), r.Flaps))
		}
		if r.Drained && !r.Announced {
			why = append(why, "drained")
		}
		t.Rows = append(t.Rows, []string{r.Router, r.Phase, r.Waits, vip, announced, strings.Join(why, ", ")})
	}
	return v.factory.Print(rows, t)
}
