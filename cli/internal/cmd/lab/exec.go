package lab

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newExec(t *tools) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARG]...",
		Short: "Run a command inside a node",
		Example: `  manycast lab exec r2 -- ip mroute show table all
  manycast lab exec users -- curl -s --interface 10.1.0.11 http://192.0.2.80/`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.store()
			if err != nil {
				return err
			}
			l, err := theLab(s, name)
			if err != nil {
				return err
			}
			if _, err := l.Namespace(args[0]); err != nil {
				return err
			}
			argv := args[1:]
			if argv[0] == "--" && len(argv) > 1 {
				argv = argv[1:]
			}
			// This process becomes the command: terminal, signals and exit status are the command's own.
			c := l.Command(cmd.Context(), args[0], argv...)
			if c.Err != nil {
				return c.Err
			}
			if err := unix.Exec(c.Path, c.Args, c.Env); err != nil {
				return fmt.Errorf("%s: %w", c.Path, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "lab", os.Getenv("MANYCAST_LAB"), "the lab, where several are up (environment: MANYCAST_LAB)")
	cmd.Flags().SetInterspersed(false)
	return cmd
}
