// Package edge is where others ask and hear: the status socket, the bus, metrics. The router does without any of them.
package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/manycast/manycast/internal/daemon"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const (
	askTimeout = 2 * time.Second
	requestMax = 4 << 10 // bytes
	socketMost = 16      // connections at a time
)

// Asker answers requests; a service.Service is one.
type Asker interface {
	Ask(context.Context, *tdpdv1.Request) (*tdpdv1.Answer, error)
}

// ListenStatus makes the task that answers whoever connects to <stateDir>/status.sock, which is 0600. The socket takes connections when
// ListenStatus returns.
func ListenStatus(stateDir string, a Asker, log *slog.Logger) (daemon.Task, error) {
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
	return daemon.Func("status socket", func(ctx context.Context) error { return serveSocket(ctx, l, a, log) }), nil
}

func serveSocket(ctx context.Context, l net.Listener, a Asker, log *slog.Logger) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	places := make(chan struct{}, socketMost)
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			c.Close()
			return nil
		}
		go func() {
			defer func() { <-places }()
			defer c.Close()
			if err := answer(ctx, c, a); err != nil {
				log.Debug("status not told", "err", err)
			}
		}()
	}
}

// errorOf is what the socket says in place of an Answer.
type errorOf struct {
	Error string `json:"error"`
}

func answer(ctx context.Context, c net.Conn, a Asker) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := c.SetDeadline(time.Now().Add(2 * askTimeout)); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(c, requestMax+1))
	if err != nil {
		return err
	}
	reply, err := ask(ctx, a, text)
	if err != nil {
		return writeError(c, err)
	}
	data, err := protojson.Marshal(reply)
	if err != nil {
		return err
	}
	_, err = c.Write(append(data, '\n'))
	return err
}

// ask reads a request; none is one for the status.
func ask(ctx context.Context, a Asker, text []byte) (*tdpdv1.Answer, error) {
	r := &tdpdv1.Request{About: &tdpdv1.Request_Status{}}
	if len(text) > requestMax {
		return nil, fmt.Errorf("a request of more than %d bytes", requestMax)
	}
	if len(text) > 0 {
		if err := protojson.Unmarshal(text, r); err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
	}
	return answerOf(a.Ask(ctx, r))
}

func writeError(c net.Conn, err error) error {
	data, err := json.Marshal(errorOf{err.Error()})
	if err == nil {
		_, err = c.Write(append(data, '\n'))
	}
	return err
}
