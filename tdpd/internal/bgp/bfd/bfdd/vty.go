package bfdd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// answerMax is the longest answer that is taken, in bytes: some 3,000 peers.
const answerMax = 2 << 20

// vty is a connection to an FRR daemon's vty socket: commands end with a zero byte, answers with three and a status.
type vty struct {
	conn net.Conn
	in   *bufio.Reader
}

// statusWarning is that of a command that has done nothing, or not all, as when what is to go is not there; a higher one: it was not understood.
const statusWarning = 1

// refusedError is what the daemon says of a command that it does not take; the connection goes on.
type refusedError struct{ text string }

func (e refusedError) Error() string { return "refused: " + e.text }

var errTooLong = errors.New("the answer is too long")

func dial(ctx context.Context, path string) (*vty, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("FRR's bfdd: %w: does it run, and may this user speak with it (group frrvty)?", err)
	}
	v := &vty{conn, bufio.NewReader(conn)}
	if _, err := v.do(ctx, "enable"); err != nil {
		v.close()
		return nil, fmt.Errorf("FRR's bfdd at %s: %w", path, err)
	}
	return v, nil
}

func (v *vty) close() { _ = v.conn.Close() }

// do has it execute a command, and returns the answer.
func (v *vty) do(ctx context.Context, command string) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = v.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := v.conn.Write(append([]byte(command), 0)); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	answer, status, err := read(v.in)
	switch {
	case err != nil:
		return nil, errors.Join(ctx.Err(), err)
	case status > statusWarning:
		return nil, refusedError{strings.TrimSpace(string(answer[:min(len(answer), 200)]))}
	}
	return answer, nil
}

// read reads an answer.
func read(in *bufio.Reader) (answer []byte, status byte, err error) {
	for {
		some, err := in.ReadSlice(0)
		answer = append(answer, some...)
		if len(answer) > answerMax {
			return nil, 0, errTooLong
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, 0, fmt.Errorf("its answer: %w", err)
		}
	}
	end := make([]byte, 3)
	if _, err := io.ReadFull(in, end); err != nil {
		return nil, 0, fmt.Errorf("its answer: %w", err)
	}
	if end[0] != 0 || end[1] != 0 {
		return nil, 0, errors.New("its answer does not end as FRR's do")
	}
	return bytes.TrimSuffix(answer, []byte{0}), end[2], nil
}
