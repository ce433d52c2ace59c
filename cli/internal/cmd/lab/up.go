package lab

import (
	"fmt"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/lab"
)

func newUp(t *tools) *cobra.Command {
	var name string
	var set map[string]string
	cmd := &cobra.Command{
		Use:               "up TOPOLOGY|FILE.yaml",
		Short:             "Bring a lab up; it stays up",
		Example:           "  sudo manycast lab up multicast\n  sudo manycast lab exec users -- curl -s --interface 10.1.0.11 http://192.0.2.80/",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: topologies,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.store()
			if err != nil {
				return err
			}
			source, err := topology(args[0])
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			l, err := s.Up(ctx, source, name, set)
			if err != nil {
				return err
			}
			defer l.Close()
			fmt.Fprintf(t.Out, "lab %s is up: manycast lab status; manycast lab exec NODE -- COMMAND; manycast lab down %s\n", l.Name(), l.Name())
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the lab, so that several of one topology can be up (default: the topology's)")
	cmd.Flags().StringToStringVar(&set, "set", nil, "vars of the topology to set, such as mode=static")
	return cmd
}

func topology(arg string) (lab.Source, error) {
	if strings.HasSuffix(arg, ".yaml") || strings.HasSuffix(arg, ".yml") {
		return lab.FromFile(arg)
	}
	return lab.BuiltIn(arg)
}

func newDown(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "down LAB",
		Short: "Remove a lab, also what a crash left of one",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: topologies,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.store()
			if err != nil {
				return err
			}
			removed, err := s.Down(cmd.Context(), args[0])
			fmt.Fprintf(t.Out, "lab %s: %s\n", args[0], removed)
			return err
		},
	}
}
