// Package holder keeps the kernel's multicast routing sockets in a small process of their own: the kernel forwards by a table
// for as long as the socket that initialised it is open somewhere. igmpd gets duplicates over a unix socket, so it may end,
// crash and come back while packets flow.
//
// The protocol is one message each way per question, on a sequential-packet socket: "MH", version, operation or status, then a
// table's number (request) or the answer's body. The descriptor of an opened table travels beside the answer, that of a given one
// beside the request.
package holder

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	version     = 1
	requestSize = 8
	headerSize  = 4
	listMax     = 1024 // tables per answer
	replyMax    = headerSize + 4*listMax
	textMax     = 1024
)

type operation uint8

const (
	opOpen    operation = 1 // initialise the table, or find it, and pass its socket
	opRelease operation = 2 // close the holder's copy; no error where there is none
	opList    operation = 3 // the tables held, from the given number on, ascending
	opGive    operation = 4 // hold the table by this socket, unless it is held
)

const (
	statusOK     = 0
	statusFailed = 1
)

type request struct {
	op    operation
	table uint32
}

type reply struct {
	tables []uint32 // of opList
	failed string   // what went wrong, for people; empty: nothing
}

var (
	errNotOurs = errors.New("not a message of the holder's protocol")
	errVersion = errors.New("another version of the holder's protocol: restart the holder, which stops forwarding for that moment")
)

func header(b []byte) error {
	if len(b) < headerSize || b[0] != 'M' || b[1] != 'H' {
		return errNotOurs
	}
	if b[2] != version {
		return errVersion
	}
	return nil
}

func (r request) marshal() []byte {
	return binary.BigEndian.AppendUint32([]byte{'M', 'H', version, byte(r.op)}, r.table)
}

func parseRequest(b []byte) (request, error) {
	if err := header(b); err != nil {
		return request{}, err
	}
	r := request{op: operation(b[3])}
	if len(b) != requestSize || r.op < opOpen || r.op > opGive {
		return request{}, errNotOurs
	}
	r.table = binary.BigEndian.Uint32(b[headerSize:])
	return r, nil
}

func (r reply) marshal() []byte {
	if r.failed != "" {
		return append([]byte{'M', 'H', version, statusFailed}, r.failed[:min(len(r.failed), textMax)]...)
	}
	b := []byte{'M', 'H', version, statusOK}
	for _, t := range r.tables[:min(len(r.tables), listMax)] {
		b = binary.BigEndian.AppendUint32(b, t)
	}
	return b
}

func parseReply(b []byte) (reply, error) {
	if err := header(b); err != nil {
		return reply{}, err
	}
	body := b[headerSize:]
	switch {
	case b[3] == statusFailed && len(body) > 0 && len(body) <= textMax:
		return reply{failed: string(body)}, nil
	case b[3] != statusOK || len(body)%4 != 0 || len(b) > replyMax:
		return reply{}, fmt.Errorf("%w: status %d with %d bytes", errNotOurs, b[3], len(body))
	}
	var r reply
	for ; len(body) > 0; body = body[4:] {
		r.tables = append(r.tables, binary.BigEndian.Uint32(body))
	}
	return r, nil
}
