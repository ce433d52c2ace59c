package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/daemon/metrics"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

const statusTimeout = 2 * time.Second

// Reporter tells the status; a Service is one.
type Reporter interface {
	Status(context.Context) (*igmpdv1.Status, error)
}

// ListenStatus makes the task that gives the status as JSON to whoever connects to <stateDir>/status.sock, which is 0600. The
// socket takes connections when ListenStatus returns.
func ListenStatus(stateDir string, r Reporter, log *slog.Logger) (daemon.Task, error) {
	path := filepath.Join(stateDir, "status.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("status socket: %w", err)
	}
	return daemon.Func("status socket", func(ctx context.Context) error { return serveStatus(ctx, l, r, log) }), nil
}

func serveStatus(ctx context.Context, l net.Listener, r Reporter, log *slog.Logger) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		go func() {
			defer c.Close()
			if err := writeStatus(ctx, c, r); err != nil {
				log.Debug("status not told", "err", err)
			}
		}()
	}
}

func writeStatus(ctx context.Context, c net.Conn, r Reporter) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	st, err := r.Status(ctx)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(statusTimeout)); err != nil {
		return err
	}
	return json.NewEncoder(c).Encode(st)
}

// ServeBus answers for the router on the bus until ctx is done. The bus may be away: the router does not need it.
func ServeBus(ctx context.Context, c *bus.Conn, name string, r Reporter) error {
	handle := func(bus.Msg) (proto.Message, error) {
		ctx, cancel := context.WithTimeout(ctx, statusTimeout)
		defer cancel()
		return r.Status(ctx)
	}
	for _, subject := range []string{"igmpd.status", "igmpd." + strings.ReplaceAll(name, ".", "-") + ".status"} {
		stop, err := c.Handle(subject, handle)
		if err != nil {
			return err
		}
		defer stop()
	}
	<-ctx.Done()
	return nil
}

// ListenMetrics makes the task that serves Prometheus metrics on addr, which takes connections when ListenMetrics returns.
func ListenMetrics(addr string, r Reporter, more ...prometheus.Collector) (daemon.Task, error) {
	return metrics.Listen(addr, append(more, collector{r})...)
}
