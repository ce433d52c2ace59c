package exchange

import (
	"bytes"
	"strings"
)

// request is what a request's head says of it, and of its answer.
type request struct {
	body    body
	head    bool // HEAD: its answer has no body
	connect bool // CONNECT: what follows a success is no HTTP
	old     bool // HTTP/1.0
	expects bool // Expect
}

// response is what a response's head says of it.
type response struct {
	body  body
	final bool // a status from 200 on
}

// fields is what the field lines say of the message and the connection.
type fields struct {
	length    uint64
	hasLength bool
	chunked   bool
	close     bool
	keepAlive bool
	expects   bool
}

// parseRequest reads a head with its empty line. A Reason says that the connection cannot be followed any more.
func parseRequest(head []byte) (request, Reason) {
	line, lines, _ := bytes.Cut(head, []byte("\r\n"))
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok || !isName(method) || len(target) == 0 || bytes.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return request{}, Unknown
	}
	if string(method) == "PRI" && string(version) == "HTTP/2.0" {
		return request{}, HTTP2
	}
	f, old, why := parseMessage(version, lines)
	if why != "" {
		return request{}, why
	}
	if f.close || old && !f.keepAlive {
		return request{}, Closing
	}
	r := request{head: string(method) == "HEAD", connect: string(method) == "CONNECT", old: old, expects: f.expects}
	r.body = body{f.length, f.chunked}
	return r, ""
}

// parseResponse reads the head of an answer to q.
func parseResponse(head []byte, q request) (response, Reason) {
	line, lines, _ := bytes.Cut(head, []byte("\r\n"))
	version, rest, _ := bytes.Cut(line, []byte(" "))
	code, reason, _ := bytes.Cut(rest, []byte(" "))
	status, why := parseStatus(code)
	if why != "" || bytes.ContainsFunc(reason, isControl) {
		return response{}, Unknown
	}
	f, old, why := parseMessage(version, lines)
	if why != "" {
		return response{}, why
	}
	if status == 101 || q.connect && status/100 == 2 {
		return response{}, Tunnel
	}
	if status < 200 || status == 204 {
		if f.chunked || f.length > 0 {
			return response{}, Unknown // RFC 9112 section 6.1: no server sends that
		}
	}
	if status < 200 {
		return response{}, ""
	}
	if f.close || (old || q.old) && !f.keepAlive {
		return response{}, Closing
	}
	if q.head || status == 204 || status == 304 {
		return response{final: true}, ""
	}
	if q.old && f.chunked {
		return response{}, Unknown
	}
	if !f.chunked && !f.hasLength {
		return response{}, Closing // its end is the connection's
	}
	return response{body: body{f.length, f.chunked}, final: true}, ""
}

func parseStatus(code []byte) (int, Reason) {
	if len(code) != 3 || code[0] < '1' || code[0] > '5' || !isDigit(code[1]) || !isDigit(code[2]) {
		return 0, Unknown
	}
	return int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0'), ""
}

// parseMessage reads what requests and responses have in common; old: it is of HTTP/1.0.
func parseMessage(version, lines []byte) (f fields, old bool, why Reason) {
	if old = string(version) == "HTTP/1.0"; !old && string(version) != "HTTP/1.1" {
		return f, old, Unknown
	}
	f, why = parseFields(lines)
	if f.chunked && (f.hasLength || old) {
		why = Unknown // RFC 9112 section 6.1
	}
	return f, old, why
}

// parseFields reads field lines and the empty one after them (RFC 9112 section 5).
func parseFields(lines []byte) (fields, Reason) {
	var f fields
	for {
		line, rest, ok := bytes.Cut(lines, []byte("\r\n"))
		if !ok {
			return f, Unknown
		}
		if len(line) == 0 {
			return f, ""
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !isName(name) || bytes.ContainsFunc(value, isControl) {
			return f, Unknown // also a folded line, or space before the colon
		}
		if why := f.add(name, bytes.Trim(value, " \t")); why != "" {
			return f, why
		}
		lines = rest
	}
}

func (f *fields) add(name, value []byte) Reason {
	switch {
	case is(name, "content-length"):
		return f.addLength(value)
	case is(name, "transfer-encoding"):
		if f.chunked || !is(value, "chunked") {
			return Unknown
		}
		f.chunked = true
	case is(name, "connection"):
		return f.addConnection(value)
	case is(name, "expect"):
		f.expects = true
	}
	return ""
}

func (f *fields) addLength(value []byte) Reason {
	if f.hasLength || len(value) == 0 || len(value) > 18 {
		return Unknown
	}
	for _, c := range value {
		if !isDigit(c) {
			return Unknown
		}
		f.length = f.length*10 + uint64(c-'0')
	}
	f.hasLength = true
	return ""
}

func (f *fields) addConnection(value []byte) Reason {
	for option := range bytes.SplitSeq(value, []byte(",")) {
		switch option = bytes.Trim(option, " \t"); {
		case is(option, "close"):
			f.close = true
		case is(option, "keep-alive"):
			f.keepAlive = true
		case is(option, "content-length"), is(option, "transfer-encoding"):
			return Unknown // a server that is a proxy may take these fields away
		}
	}
	return ""
}

// is compares without regard to case.
func is(name []byte, lower string) bool { return strings.EqualFold(string(name), lower) }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isControl is of runes that no field value has; a tab may be in one.
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// isName reports whether all of name are token characters (RFC 9110 section 5.6.2), and there is one.
func isName(name []byte) bool {
	for _, c := range name {
		if !isToken(c) {
			return false
		}
	}
	return len(name) > 0
}

func isToken(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c < 0x7f && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
