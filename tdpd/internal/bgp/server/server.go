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
	"strconv"
	"strings"

	gobgp "github.com/osrg/gobgp/v3/pkg/server"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/manycast/manycast/internal/daemon"
)

// oomScoreAdj is where the kernel hears how much rather than others this process is to be killed for memory: 0 to 1000.
const oomScoreAdj = "/proc/self/oom_score_adj"

// rather is how much that is at least: neighbors decide how much memory it needs, and nothing is lost with it that does not come back.
const rather = 500

// messageMax is the largest message of the API, in bytes.
const messageMax = 64 << 20

// offer has the kernel kill this process rather than others, where it is not to go sooner already.
func offer(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || now >= rather {
		return err
	}
	return os.WriteFile(path, []byte(strconv.Itoa(rather)), 0)
}

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
	if err := offer(oomScoreAdj); err != nil {
		log.Warn("where memory is short the kernel may kill what forwards before this process", "err", err)
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
