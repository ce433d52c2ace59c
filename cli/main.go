// Manycast operates the suite: see `manycast help`.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/manycast/manycast/cli/internal/cmd"
	"github.com/manycast/manycast/cli/internal/cmdutil"
)

func main() {
	f := cmdutil.NewFactory()
	if err := cmd.New(f).ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(f.Err, "manycast:", err)
		os.Exit(1)
	}
}
