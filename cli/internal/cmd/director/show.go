package director

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

func newShow(f *cmdutil.Factory) *cobra.Command {
	v := &verb{factory: f, request: &tdpdv1.AnnounceRequest{}}
	return v.command("show", "Show which VIPs a director announces, and why not others", "")
}
