// Package server is the process that speaks BGP: GoBGP's server with its gRPC API on a unix socket, and nothing else. What a neighbor can
// make panic, or grow, is this process alone. It knows nothing of what to say until it is told by the API, and it keeps nothing.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	gobgp "github.com/osrg/gobgp/v3/pkg/server"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/manycast/manycast/internal/daemon"
)

// messageMax is the largest message of the API, in bytes.
const messageMax = 64 << 20

// Run serves the API at a socket (0600) in a directory of its own until ctx is done. Then it returns without a word to neighbors: a process
// that ends so leaves them with a graceful restart (RFC 4724). Who wants to leave for good calls the API's StopBgp before, which sends Cease.
// There is one for each process, and one for each directory.
func Run(ctx context.Context, socket string, log *slog.Logger) error {
	lock, err := daemon.Lock(filepath.Dir(socket))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the socket of a speaker before: %w", err)
	}
	unix.Umask(0o177)
	s := gobgp.NewBgpServer(
		gobgp.GrpcListenAddress("unix://"+socket),
		gobgp.GrpcOption([]grpc.ServerOption{grpc.MaxRecvMsgSize(messageMax), grpc.MaxSendMsgSize(messageMax)}),
		gobgp.LoggerOption(logger{log}),
	)
	go s.Serve() // ends with the process
	log.Info("speaks BGP when it is told to", "socket", socket)
	<-ctx.Done()
	return nil
}
