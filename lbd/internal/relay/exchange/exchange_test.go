package exchange

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// talk is what passes on a connection, of testdata: lines "> user's bytes" and "< server's bytes", in Go's escapes, and "= state" for what
// the connection is then: between, in request, or the Reason for which it is opaque.
type talk []turn

type turn struct {
	who  byte // '>' or '<'; '=' of a state
	what string
}

func readTalk(t testing.TB, path string) talk {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all talk
	for line := range strings.Lines(string(text)) {
		who, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if who == "#" {
			continue
		}
		if who != "=" {
			if what, err = strconv.Unquote(`"` + strings.ReplaceAll(what, `"`, `\"`) + `"`); err != nil {
				t.Fatalf("%s: %q: %v", path, line, err)
			}
		}
		all = append(all, turn{who[0], what})
	}
	return all
}

func corpus(t testing.TB) map[string]talk {
	t.Helper()
	paths, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]talk{}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			all[filepath.Base(path)] = readTalk(t, path)
		}
	}
	if len(all) < 50 {
		t.Fatalf("%d talks in testdata", len(all))
	}
	return all
}

func (x *Exchange) state() string {
	switch {
	case x.Opaque() != "":
		return string(x.Opaque())
	case x.Between():
		return "between"
	}
	return "in request"
}

func (x *Exchange) pass(who byte, p []byte) {
	if who == '>' {
		x.Request(p)
	} else {
		x.Response(p)
	}
}

func TestCorpus(t *testing.T) {
	for name, talk := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			for _, most := range []int{1, 2, 3, 7, 1 << 20} {
				var x Exchange
				for i, turn := range talk {
					if turn.who == '=' {
						if got := x.state(); got != turn.what {
							t.Fatalf("in pieces of %d, line %d: %s, want %s", most, i+1, got, turn.what)
						}
						continue
					}
					for p := []byte(turn.what); len(p) > 0; {
						n := min(most, len(p))
						x.pass(turn.who, p[:n])
						p = p[n:]
					}
				}
			}
		})
	}
}

func TestResume(t *testing.T) {
	x := Resume(7)
	if !x.Between() || x.Requests() != 7 {
		t.Errorf("%s after %d requests", x.state(), x.Requests())
	}
	x.Request([]byte("GET / HTTP/1.1\r\n\r\n"))
	x.Response([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	if !x.Between() || x.Requests() != 8 {
		t.Errorf("%s after %d requests", x.state(), x.Requests())
	}
}

// What is remembered of a connection has bounds, whatever comes.
func TestBounds(t *testing.T) {
	field := []byte("X: " + strings.Repeat("x", 1000) + "\r\n")
	for name, test := range map[string]struct{ begin, more []byte }{
		"head":              {[]byte("GET / HTTP/1.1\r\n"), field},
		"line":              {[]byte("GET /"), bytes.Repeat([]byte("x"), 1000)},
		"trailer":           {[]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"), field},
		"chunk's size":      {[]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.Repeat([]byte("0"), 1000)},
		"pipelined request": {nil, []byte("GET / HTTP/1.1\r\n\r\n")},
	} {
		var x Exchange
		x.Request(test.begin)
		for passed := 0; x.Opaque() == ""; passed += len(test.more) {
			x.Request(test.more)
			if passed > MaxHead+len(test.more) || len(x.asked) > MaxPipelined {
				t.Fatalf("%s: still followed after %d bytes", name, passed)
			}
		}
		if x.Opaque() != Unknown || x.up.lines != nil || x.asked != nil {
			t.Errorf("%s: %s, and %d bytes are kept", name, x.state(), cap(x.up.lines))
		}
	}
	var x Exchange
	x.Request([]byte("GET / HTTP/1.1\r\n" + strings.Repeat(string(field), 20) + "\r\n"))
	x.Response([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	if !x.Between() || cap(x.up.lines) > keptLines {
		t.Errorf("%s, and %d bytes are kept between requests", x.state(), cap(x.up.lines))
	}
}

// other is what changes the direction in the fuzzer's talks.
const other = 0xff

// However the bytes are cut, the connection is in the same state after each turn of the talk.
func FuzzExchange(f *testing.F) {
	for _, talk := range corpus(f) {
		var bytes []byte
		who := byte('>')
		for _, turn := range talk {
			if turn.who != '=' && turn.who != who {
				who = turn.who
				bytes = append(bytes, other)
			}
			if turn.who != '=' {
				bytes = append(bytes, turn.what...)
			}
		}
		f.Add(bytes, uint64(1))
	}
	f.Fuzz(func(t *testing.T, talk []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		var whole, cut Exchange
		who := byte('>')
		for turn := range bytes.SplitSeq(talk, []byte{other}) {
			whole.pass(who, turn)
			for p := turn; len(p) > 0; {
				n := 1 + random.IntN(min(len(p), 8))
				cut.pass(who, p[:n])
				p = p[n:]
			}
			if whole.state() != cut.state() || whole.Requests() != cut.Requests() {
				t.Fatalf("%s after %d requests, in pieces %s after %d", whole.state(), whole.Requests(), cut.state(), cut.Requests())
			}
			if cap(cut.up.lines)+cap(cut.down.lines) > 4*MaxHead || len(cut.asked) > MaxPipelined {
				t.Fatal("too much is remembered")
			}
			who ^= '>' ^ '<'
		}
	})
}

func BenchmarkExchange(b *testing.B) {
	ask := []byte("GET /path HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n")
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\n%s", make([]byte, 1000))
	var x Exchange
	b.ReportAllocs()
	for b.Loop() {
		x.Request(ask)
		x.Response(answer)
	}
	if !x.Between() {
		b.Fatal(x.state())
	}
}
