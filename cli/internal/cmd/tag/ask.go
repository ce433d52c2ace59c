package tag

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

	"github.com/manycast/manycast/internal/bus"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const (
	gather    = 500 * time.Millisecond // how long answers of all routers are collected
	answerMax = 64 << 20               // bytes, of a status socket
	pagesMost = 200_000                // of one router
)

// way is how routers are asked.
type way interface {
	// all gives the status of each router there is, by name.
	all(ctx context.Context) ([]*tdpdv1.Answer, error)
	// one asks a router by its name.
	one(ctx context.Context, router string, r *tdpdv1.Request) (*tdpdv1.Answer, error)
	close()
}

func askStatus() *tdpdv1.Request { return &tdpdv1.Request{About: &tdpdv1.Request_Status{}} }

// open finds the way to the routers.
func (o *options) open(ctx context.Context) (way, error) {
	if o.socket != "" {
		return socketWay{o.socket, o.factory.Timeout}, nil
	}
	c, err := o.factory.Bus(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w (or ask the tdpd of this machine with --socket)", err)
	}
	return busWay{c, o.factory.Timeout}, nil
}

// statuses are those of the routers that the user means.
func (o *options) statuses(ctx context.Context, w way) ([]*tdpdv1.Answer, error) {
	if o.router == "" {
		return w.all(ctx)
	}
	answer, err := w.one(ctx, o.router, askStatus())
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

func (w busWay) close() { w.c.Close() }

func (w busWay) one(ctx context.Context, router string, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	answer := &tdpdv1.Answer{}
	err := w.c.Request(ctx, bus.Of("tdpd.ask", router), r, answer)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, fmt.Errorf("router %s is not on the bus: leave the name out to see who is", router)
	}
	return answer, err
}

func (w busWay) all(ctx context.Context) ([]*tdpdv1.Answer, error) {
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
		return nil, errors.New("no label switching router is on the bus: set bus.urls in tdpd.toml, or ask the tdpd of this machine with --socket")
	}
	slices.SortFunc(all, func(a, b *tdpdv1.Answer) int { return strings.Compare(a.GetRouter(), b.GetRouter()) })
	return all, errors.Join(err, failed)
}

// socketWay asks the router of this machine.
type socketWay struct {
	path    string
	timeout time.Duration
}

func (socketWay) close() {}

func (w socketWay) all(ctx context.Context) ([]*tdpdv1.Answer, error) {
	answer, err := w.ask(ctx, askStatus())
	if err != nil {
		return nil, err
	}
	return []*tdpdv1.Answer{answer}, nil
}

func (w socketWay) one(ctx context.Context, router string, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
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
	return decodeAnswer(w.path, text)
}

// decodeAnswer reads what a status socket says.
func decodeAnswer(path string, text []byte) (*tdpdv1.Answer, error) {
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
	return answer, nil
}

// eachFEC asks a router for FECs, page by page.
func eachFEC(ctx context.Context, w way, router string, about *tdpdv1.FECsRequest, each func(*tdpdv1.FEC)) error {
	return eachPage(ctx, w, router, func(after string) *tdpdv1.Request {
		about.After = after
		return &tdpdv1.Request{About: &tdpdv1.Request_Fecs{Fecs: about}}
	}, func(answer *tdpdv1.Answer) string {
		for _, f := range answer.GetFecs().GetFecs() {
			each(f)
		}
		return answer.GetFecs().GetNext()
	})
}

// eachEntry asks a router for one of its tables.
func eachEntry(ctx context.Context, w way, router string, ftn bool, each func(*tdpdv1.Entry)) error {
	return eachPage(ctx, w, router, func(after string) *tdpdv1.Request {
		return &tdpdv1.Request{About: &tdpdv1.Request_Table{Table: &tdpdv1.TableRequest{Ftn: ftn, After: after}}}
	}, func(answer *tdpdv1.Answer) string {
		for _, e := range answer.GetTable().GetEntries() {
			each(e)
		}
		return answer.GetTable().GetNext()
	})
}

func eachPage(ctx context.Context, w way, router string, request func(after string) *tdpdv1.Request, take func(*tdpdv1.Answer) (next string)) error {
	after := ""
	for range pagesMost {
		answer, err := w.one(ctx, router, request(after))
		if err != nil {
			return err
		}
		next := take(answer)
		if next == "" {
			return nil
		}
		if next == after {
			return fmt.Errorf("router %s gives the same page again and again", router)
		}
		after = next
	}
	return fmt.Errorf("router %s finds no end: more than %d pages", router, pagesMost)
}
