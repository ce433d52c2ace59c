// Package bus is the suite's one way to NATS: protobuf messages by subject, request and reply, key-value buckets with watches.
// No other package imports NATS (a linter holds that).
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
)

// What callers tell apart with errors.Is.
var (
	// ErrAway: the bus cannot be reached now; the connection goes on trying by itself.
	ErrAway = errors.New("bus is away")
	// ErrNotFound: the bucket has no such key.
	ErrNotFound = errors.New("not found")
	// ErrExists: Create found the key.
	ErrExists = errors.New("exists already")
	// ErrConflict: Update was given a revision that is not the newest.
	ErrConflict = errors.New("changed meanwhile")
	// ErrNoBucket: this bus was not set up for the suite, or the bucket was deleted.
	ErrNoBucket = errors.New("the bus has no such bucket: `manycast bus init` makes it")
	// ErrDenied: the credentials' role may not do that, or there are none.
	ErrDenied = errors.New("not permitted")
)

// Config says how to reach the bus.
type Config struct {
	URLs        []string // nats://host:port; any of one cluster
	Credentials string   // path of the role's nkey seed, mode 0600
	Name        string   // of this client, for the bus' operators
	Log         *slog.Logger
}

// Conn is one client's connection. All its methods may be called from several goroutines.
type Conn struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	log    *slog.Logger
	denied denials

	mu          sync.Mutex
	reconnected chan struct{} // closed and replaced at every (re)connect
}

// Connect returns at once, though the bus may be away: the connection is made, and made again, in the background for ever.
// It fails for what waiting cannot mend: no URL, credentials that are missing, unreadable or readable by others.
func Connect(cfg Config) (*Conn, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("bus: no urls: set bus.urls, such as nats://127.0.0.1:4222")
	}
	seed, role, err := readCredentials(cfg.Credentials)
	if err != nil {
		return nil, err
	}
	pub, sign, err := signer(seed)
	if err != nil {
		return nil, fmt.Errorf("bus credentials %s: %w", cfg.Credentials, err)
	}
	c := &Conn{log: cfg.Log, reconnected: make(chan struct{})}
	nc, err := nats.Connect(strings.Join(cfg.URLs, ","),
		nats.Name(cfg.Name),
		nats.Nkey(pub, sign),
		nats.CustomInboxPrefix(inbox(role)),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(200*time.Millisecond),
		nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond),
		nats.Timeout(2*time.Second),
		nats.PingInterval(2*time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(*nats.Conn) { c.connected("bus connected") }),
		nats.ReconnectHandler(func(*nats.Conn) { c.connected("bus is back") }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				cfg.Log.Warn("bus is away", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if c.denied.tell(role, err) {
				return
			}
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			cfg.Log.Warn("bus", "subject", subject, "err", err)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("bus %s: %w", strings.Join(cfg.URLs, ", "), err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	c.nc, c.js = nc, js
	return c, nil
}

// Close gives what is on its way up to a second and ends the connection.
func (c *Conn) Close() {
	if c.nc.IsConnected() {
		_ = c.nc.FlushTimeout(time.Second) // the connection ends either way
	}
	c.nc.Close()
}

// WaitConnected waits until the bus is there, or ctx is done (ErrAway).
func (c *Conn) WaitConnected(ctx context.Context) error {
	for {
		next := c.nextConnect()
		if c.nc.IsConnected() {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", ErrAway, strings.Join(c.nc.Servers(), ", "))
		}
	}
}

func (c *Conn) connected(msg string) {
	c.mu.Lock()
	close(c.reconnected)
	c.reconnected = make(chan struct{})
	c.mu.Unlock()
	c.log.Info(msg)
}

// nextConnect is closed when the connection is made the next time.
func (c *Conn) nextConnect() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reconnected
}

// Publish sends m to all who listen to subject. While the bus is away up to 8 MiB are kept and sent when it is back.
func (c *Conn) Publish(subject string, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("publish %s: %w", subject, err)
	}
	if err := c.nc.Publish(subject, data); err != nil {
		return fmt.Errorf("publish %s: %w", subject, classify(err))
	}
	return nil
}

// Msg is a message received. Data is the protobuf payload.
type Msg struct {
	Subject string
	Data    []byte
}

// Subscribe calls handle for every message to subject (wildcards * and >), one at a time. It survives reconnects; stop ends it.
func (c *Conn) Subscribe(subject string, handle func(Msg)) (stop func(), err error) {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) { handle(Msg{m.Subject, m.Data}) })
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", subject, classify(err))
	}
	return func() { _ = sub.Unsubscribe() }, nil // fails only on a closed connection
}

// errorHeader carries the text of a handler's error back to the requester.
const errorHeader = "Manycast-Error"

// Handle answers requests to subject with what handle returns. It survives reconnects; stop ends it.
func (c *Conn) Handle(subject string, handle func(Msg) (proto.Message, error)) (stop func(), err error) {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		reply := nats.NewMsg(m.Reply)
		answer, err := handle(Msg{m.Subject, m.Data})
		if err == nil {
			reply.Data, err = proto.Marshal(answer)
		}
		if err != nil {
			reply.Header.Set(errorHeader, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		if m.Reply == "" {
			return
		}
		if err := m.RespondMsg(reply); err != nil {
			c.log.Warn("bus answer not sent", "subject", m.Subject, "err", err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("handle %s: %w", subject, classify(err))
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// Request sends request and waits for one answer into answer, until ctx is done. Nobody there is ErrNotFound, no bus ErrAway.
func (c *Conn) Request(ctx context.Context, subject string, request, answer proto.Message) error {
	data, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("request %s: %w", subject, err)
	}
	ctx, done := c.denied.until(ctx, func(denied string) bool { return denied == subject })
	defer done()
	reply, err := c.nc.RequestWithContext(ctx, subject, data)
	if err != nil {
		return fmt.Errorf("request %s: %w", subject, because(ctx, classify(err)))
	}
	return decodeReply(subject, reply, answer)
}

// RequestMany sends request and calls each for every answer until ctx is done or as many as most have come (0: no limit). Of
// those who answer with an error, each hears nothing; the error returned has them all.
func (c *Conn) RequestMany(ctx context.Context, subject string, request proto.Message, most int, each func(Msg)) error {
	data, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("request %s: %w", subject, err)
	}
	ctx, done := c.denied.until(ctx, func(denied string) bool { return denied == subject })
	defer done()
	box := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(box)
	if err != nil {
		return fmt.Errorf("request %s: %w", subject, classify(err))
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishRequest(subject, box, data); err != nil {
		return fmt.Errorf("request %s: %w", subject, classify(err))
	}
	var failed []error
	for got := 0; most == 0 || got < most; got++ {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			return fmt.Errorf("request %s: %w: nobody answers", subject, ErrNotFound)
		case errors.Is(context.Cause(ctx), ErrDenied):
			return fmt.Errorf("request %s: %w", subject, context.Cause(ctx))
		case ctx.Err() != nil:
			return errors.Join(failed...)
		case err != nil:
			return errors.Join(append(failed, fmt.Errorf("request %s: %w", subject, classify(err)))...)
		}
		if err := replyError(subject, m); err != nil {
			failed = append(failed, err)
			continue
		}
		each(Msg{m.Subject, m.Data})
	}
	return errors.Join(failed...)
}

// replyError is the error that a handler answered with, nil if it is an answer.
func replyError(subject string, reply *nats.Msg) error {
	if text := reply.Header.Get(errorHeader); text != "" {
		return fmt.Errorf("request %s: %s", subject, text)
	}
	return nil
}

func decodeReply(subject string, reply *nats.Msg, answer proto.Message) error {
	if err := replyError(subject, reply); err != nil {
		return err
	}
	if err := proto.Unmarshal(reply.Data, answer); err != nil {
		return fmt.Errorf("answer to %s: %w", subject, err)
	}
	return nil
}

// classify turns the library's errors into ours, and keeps the original's text.
func classify(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: nobody answers", ErrNotFound)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("%w (%w)", ErrAway, err)
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("%w (%w)", ErrDenied, err)
	case errors.Is(err, jetstream.ErrKeyExists):
		return fmt.Errorf("%w (%w)", ErrExists, err)
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return ErrNotFound
	}
	return err
}
