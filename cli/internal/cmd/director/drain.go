package director

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

func newDrain(f *cmdutil.Factory) *cobra.Command {
	v := &verb{factory: f, request: &tdpdv1.AnnounceRequest{Change: &tdpdv1.AnnounceRequest_Drain{Drain: true}}, until: "out"}
	cmd := v.command("drain", "Send a director's users to others, for maintenance", `Send a director's users to others. What it announces is told so that nobody prefers it who has another way; when neighbors had time for
that, it is withdrawn; then the director may be stopped. A tdpd that starts announces again.`)
	cmd.Example = "  manycast director drain edge1 --wait --timeout 60s"
	v.waitFlag(cmd)
	return cmd
}

func newUndrain(f *cmdutil.Factory) *cobra.Command {
	v := &verb{factory: f, request: &tdpdv1.AnnounceRequest{Change: &tdpdv1.AnnounceRequest_Back{Back: true}}, until: "in"}
	cmd := v.command("undrain", "Take a drained director's users back", `Take a drained director's users back, however far it has gone, in the reverse order.`)
	v.waitFlag(cmd)
	return cmd
}
