// Package routers asks label switching routers: over the bus, or at the status socket of the one on this machine.
package routers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const (
	gather    = 500 * time.Millisecond // how long answers of all routers are collected
	answerMax = 64 << 20               // bytes, of a status socket
)

// Way is how routers are asked.
type Way interface {
	// All gives the status of each router there is, by name.
	All(ctx context.Context) ([]*tdpdv1.Answer, error)
	// One asks a router by its name.
	One(ctx context.Context, router string, r *tdpdv1.Request) (*tdpdv1.Answer, error)
	Close()
}

// ErrNone says that there is no router.
var ErrNone = errors.New("no label switching router is on the bus: set bus.urls in tdpd.toml, or ask the tdpd of this machine with --socket")

func askStatus() *tdpdv1.Request { return &tdpdv1.Request{About: &tdpdv1.Request_Status{}} }

// Open finds the way to the routers: the bus, or the status socket that is named. The caller closes it.
func Open(ctx context.Context, f *cmdutil.Factory, socket string) (Way, error) {
	if socket != "" {
		return socketWay{socket, f.Timeout}, nil
	}
	c, err := f.Bus(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w (or ask the tdpd of this machine with --socket)", err)
	}
	return busWay{c, f.Timeout}, nil
}

// Statuses are those of one router by its name, or of all.
func Statuses(ctx context.Context, w Way, router string) ([]*tdpdv1.Answer, error) {
	if router == "" {
		return w.All(ctx)
	}
	answer, err := w.One(ctx, router, askStatus())
	if err != nil {
		return nil, err
	}
	return []*tdpdv1.Answer{answer}, nil
}

// busWay asks over the bus.
type busWay struct {
	c       *bus.Conn
	timeout time.Duration
}

func (w busWay) Close() { w.c.Close() }

func (w busWay) One(ctx context.Context, router string, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	answer := &tdpdv1.Answer{}
	err := w.c.Request(ctx, bus.Of("tdpd.ask", router), r, answer)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, fmt.Errorf("router %s is not on the bus: manycast tag neighbors shows who is", router)
	}
	if err != nil {
		return nil, err
	}
	return answer, unansweredOf(answer)
}

func (w busWay) All(ctx context.Context) ([]*tdpdv1.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, min(gather, w.timeout))
	defer cancel()
	var all []*tdpdv1.Answer
	var failed error
	err := w.c.RequestMany(ctx, "tdpd.ask", askStatus(), 0, func(m bus.Msg) {
		answer := &tdpdv1.Answer{}
		if err := proto.Unmarshal(m.Data, answer); err != nil {
			failed = err
			return
		}
		all = append(all, answer)
	})
	if errors.Is(err, bus.ErrNotFound) || err == nil && len(all) == 0 && failed == nil {
		return nil, ErrNone
	}
	slices.SortFunc(all, func(a, b *tdpdv1.Answer) int { return strings.Compare(a.GetRouter(), b.GetRouter()) })
	return all, errors.Join(err, failed)
}

// socketWay asks the router of this machine.
type socketWay struct {
	path    string
	timeout time.Duration
}

func (socketWay) Close() {}

func (w socketWay) All(ctx context.Context) ([]*tdpdv1.Answer, error) {
	answer, err := w.ask(ctx, askStatus())
	if err != nil {
		return nil, err
	}
	return []*tdpdv1.Answer{answer}, nil
}

func (w socketWay) One(ctx context.Context, router string, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	answer, err := w.ask(ctx, r)
	if err == nil && answer.GetRouter() != router {
		return nil, fmt.Errorf("the tdpd behind %s is %s, not %s", w.path, answer.GetRouter(), router)
	}
	return answer, err
}

func (w socketWay) ask(ctx context.Context, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	d := net.Dialer{Timeout: w.timeout}
	c, err := d.DialContext(ctx, "unix", w.path)
	if err != nil {
		return nil, fmt.Errorf("tdpd does not answer: %w (is it running here, and is %s its status socket?)", err, w.path)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(w.timeout)); err != nil {
		return nil, err
	}
	request, err := protojson.Marshal(r)
	if err == nil {
		_, err = c.Write(request)
	}
	if half, ok := c.(*net.UnixConn); ok && err == nil {
		err = half.CloseWrite()
	}
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", w.path, err)
	}
	text, err := io.ReadAll(io.LimitReader(c, answerMax))
	if err != nil {
		return nil, fmt.Errorf("answer from %s: %w", w.path, err)
	}
	return Decode(w.path, text)
}

// Decode reads what a status socket says.
func Decode(path string, text []byte) (*tdpdv1.Answer, error) {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &e) == nil && e.Error != "" {
		return nil, errors.New(e.Error)
	}
	answer := &tdpdv1.Answer{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, answer); err != nil {
		return nil, fmt.Errorf("answer from %s: %w", path, err)
	}
	return answer, unansweredOf(answer)
}
