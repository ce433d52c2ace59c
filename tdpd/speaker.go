package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/tdpd/internal/bgp/server"
)

// speaker is the process that speaks BGP for tdpd, which starts it. It has no configuration: what it is to do it is told at its socket.
func speaker() *cobra.Command {
	socket, level := "", "info"
	cmd := &cobra.Command{
		Use:   "speaker",
		Short: "Speak BGP as it is told to at a socket, for the tdpd that starts it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.Logger(level, os.Stderr)
			if err != nil {
				return err
			}
			// It outlives a tdpd that dies, and who reads what it writes.
			signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return server.Run(ctx, socket, log)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "serve GoBGP's gRPC API at this unix socket, in a directory of its own")
	cmd.Flags().StringVar(&level, "log-level", level, "debug, info, warn or error")
	_ = cmd.MarkFlagRequired("socket") // the flag is there
	return cmd
}
