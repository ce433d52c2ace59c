// Manycast operates the suite: see `manycast help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/manycast/manycast/cli/internal/cmd"
	"github.com/manycast/manycast/cli/internal/cmdutil"
)

func main() {
	f := cmdutil.NewFactory()
	if err := cmd.New(f).ExecuteContext(context.Background()); err != nil {
		var status cmdutil.Exit
		if errors.As(err, &status) && err.Error() == status.Error() { // nothing besides is to be said
			os.Exit(int(status))
		}
		fmt.Fprintln(f.Err, "manycast:", err)
		os.Exit(max(1, int(status)))
	}
}
