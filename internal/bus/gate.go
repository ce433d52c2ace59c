package bus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// gate stands between the clients and the server, and holds what the server's permissions leave open. A client chooses where the
// answer to its request goes, and a consumer its messages; the server sends them there in its own name. So a role that may read
// one bucket could have what it wrote delivered into any other. The gate lets answers go to the role's own inbox alone.
type gate struct {
	log  *slog.Logger
	role map[string]string // by public nkey; the server checks that the client has it
	dial func() (net.Conn, error)
}

// serve hands clients on until ctx is done, and returns when all are gone.
func (g *gate) serve(ctx context.Context, l net.Listener) {
	var clients sync.WaitGroup
	defer clients.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		client, err := l.Accept()
		switch {
		case err == nil:
			clients.Go(func() { g.relay(ctx, client) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			g.log.Warn("bus cannot take a client", "err", err) // out of descriptors: it comes again
		}
	}
}

// relay carries one connection until either side ends it.
func (g *gate) relay(ctx context.Context, client net.Conn) {
	defer client.Close()
	srv, err := g.dial()
	if err != nil {
		g.log.Warn("bus cannot take a client", "err", err)
		return
	}
	end := func() { client.Close(); srv.Close() }
	defer context.AfterFunc(ctx, end)()
	var down sync.WaitGroup
	down.Go(func() {
		_, _ = io.Copy(client, srv) // its end is the connection's
		end()
	})
	err = g.filter(bufio.NewReaderSize(client, controlLine), srv)
	var refused errRefused
	if errors.As(err, &refused) {
		g.log.Warn("bus closed a connection", "client", client.RemoteAddr().String(), "err", err)
	}
	end()
	down.Wait()
}

const (
	controlLine = 8 << 10  // bytes at most
	mostRequest = 64 << 10 // bytes of a request to make a consumer
)

// errRefused is what a client may not say.
type errRefused string

func (e errRefused) Error() string { return string(e) }

// filter reads what a client says and writes what it may say, in one form, so that the server cannot read it in another way.
func (g *gate) filter(in *bufio.Reader, server io.Writer) error {
	out := bufio.NewWriterSize(server, controlLine)
	role := ""
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return errRefused("a line is too long")
		}
		if err != nil {
			return err
		}
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
		if bytes.ContainsAny(line, "\r\x00") {
			return errRefused("a line has control characters")
		}
		verb, rest, _ := bytes.Cut(line, []byte(" "))
		op := strings.ToUpper(string(verb))
		if op == "CONNECT" {
			if role != "" {
				return errRefused("it connects twice")
			}
			if role, err = g.roleOf(rest); err != nil {
				return err
			}
			fmt.Fprintf(out, "CONNECT %s\r\n", rest)
			continue
		}
		if role == "" {
			return errRefused("it does not connect first")
		}
		args := strings.Fields(string(rest))
		switch op {
		case "PING", "PONG", "SUB", "UNSUB":
			fmt.Fprintf(out, "%s\r\n", strings.Join(append([]string{op}, args...), " "))
		case "PUB", "HPUB":
			if err := copyMessage(in, out, role, op, args); err != nil {
				return err
			}
		default:
			return errRefused(fmt.Sprintf("operation %.20q", op))
		}
	}
}

// nobody is the role of those whom the server will turn away.
const nobody = "nobody"

// roleOf reads the client's public key as the server does.
func (g *gate) roleOf(connect []byte) (string, error) {
	var options struct {
		Nkey string `json:"nkey"`
	}
	if err := json.Unmarshal(connect, &options); err != nil {
		return "", errRefused("CONNECT: " + err.Error())
	}
	if role, ok := g.role[options.Nkey]; ok {
		return role, nil
	}
	return nobody, nil
}

// copyMessage copies PUB subject [reply] size, or HPUB subject [reply] header-size size, and what follows it.
func copyMessage(in *bufio.Reader, out *bufio.Writer, role, op string, args []string) error {
	sizes := 1
	if op == "HPUB" {
		sizes = 2
	}
	if len(args) != 1+sizes && len(args) != 2+sizes {
		return errRefused(fmt.Sprintf("%s with %d arguments", op, len(args)))
	}
	subject := args[0]
	if len(args) == 2+sizes {
		if reply := args[1]; !answersGoTo(role, reply) {
			return errRefused(fmt.Sprintf("role %s wants the answer to %s sent to %s", role, subject, reply))
		}
	}
	size, err := strconv.ParseUint(args[len(args)-1], 10, 31)
	if err != nil {
		return errRefused("a size: " + err.Error())
	}
	headers := uint64(0)
	if op == "HPUB" {
		if headers, err = strconv.ParseUint(args[len(args)-2], 10, 31); err != nil || headers > size {
			return errRefused("a size of headers")
		}
	}
	fmt.Fprintf(out, "%s %s\r\n", op, strings.Join(args, " "))
	if makesConsumer(subject) && role != "admin" {
		err = copyConsumer(in, out, role, size, headers)
	} else {
		_, err = io.CopyN(out, in, int64(size))
	}
	if err != nil {
		return err
	}
	var end [2]byte
	if _, err := io.ReadFull(in, end[:]); err != nil {
		return err
	}
	if string(end[:]) != "\r\n" {
		return errRefused("a message is longer than its size")
	}
	_, err = out.Write(end[:])
	return err
}

// answersGoTo reports whether the role may have messages sent to subject. Operators may do all, elsewhere too.
func answersGoTo(role, subject string) bool {
	return role == "admin" || strings.HasPrefix(subject, inbox(role)+".")
}

func makesConsumer(subject string) bool {
	return strings.HasPrefix(subject, "$JS.API.CONSUMER.CREATE.") || strings.HasPrefix(subject, "$JS.API.CONSUMER.DURABLE.")
}

// copyConsumer copies a request to make a consumer that delivers to the role's inbox, or when it is asked.
func copyConsumer(in *bufio.Reader, out *bufio.Writer, role string, size, headers uint64) error {
	if size > mostRequest {
		return errRefused("a consumer of too many words")
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(in, body); err != nil {
		return err
	}
	var request server.CreateConsumerRequest
	if err := json.Unmarshal(body[headers:], &request); err != nil {
		return errRefused("a consumer: " + err.Error())
	}
	if to := request.Config.DeliverSubject; to != "" && !answersGoTo(role, to) {
		return errRefused(fmt.Sprintf("role %s wants a consumer that delivers to %s", role, to))
	}
	_, err := out.Write(body)
	return err
}
