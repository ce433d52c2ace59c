package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var equate = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) Prefix { return Prefix{netip.MustParsePrefix(s)} }

func addrPrefix(s string, bits int) netip.Prefix { return netip.PrefixFrom(addr(s), bits) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// lines reads a file of testdata without its comments: behind a # on any line.
func lines(t testing.TB, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

// golden reads a message of testdata. The files were written by hand from the figures of the RFCs that they name; tshark 4.0 decodes
// each of them to the fields that the tests want (TestNetTshark).
func golden(t testing.TB, name string) []byte {
	t.Helper()
	return unhex(t, strings.Join(lines(t, name+".hex"), ""))
}

// example is a message and the file that has its bytes.
type example struct {
	file    string
	message Message
}

// both has each example decoded and encoded.
func both(t *testing.T, examples []example) {
	t.Helper()
	for _, x := range examples {
		t.Run(x.file, func(t *testing.T) {
			b := golden(t, x.file)
			m, n, err := parseMessage(b)
			if err != nil || n != len(b) {
				t.Fatalf("%d of %d bytes decoded: %v", n, len(b), err)
			}
			if diff := cmp.Diff(x.message, m, equate); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			out, err := AppendMessage([]byte("before"), x.message)
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]byte("before"), b...); !bytes.Equal(want, out) {
				t.Errorf("encoded\n%x, want\n%x", out, want)
			}
		})
	}
}

// refused has messages encoded that cannot be.
func refused(t *testing.T, messages map[string]Message) {
	t.Helper()
	for name, m := range messages {
		before := []byte("before")
		b, err := AppendMessage(before, m)
		if !errors.Is(err, ErrInvalid) || string(b) != "before" {
			t.Errorf("%s: %q, error %v; want ErrInvalid and nothing appended", name, b, err)
		}
	}
}

// fuzz fuzzes what follows the message ID in messages of one type.
func fuzz(f *testing.F, kind MessageType, examples []example) {
	for _, x := range examples {
		f.Add(golden(f, x.file)[messageHeaderSize:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > maxMessageLength-messageIDSize {
			return
		}
		survives(t, appendRaw(nil, kind, 42, body))
	})
}

func appendRaw(b []byte, kind MessageType, id uint32, body []byte) []byte {
	n := len(body) + messageIDSize
	b = append(b, byte(kind>>8), byte(kind), byte(n>>8), byte(n), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	return append(b, body...)
}

// survives checks that a message is either refused with a reaction, or encoded to what is decoded to itself; and that nothing decoded
// is a part of the input.
func survives(t *testing.T, raw []byte) {
	t.Helper()
	input := bytes.Clone(raw)
	m, n, err := parseMessage(input)
	clear(input)
	if err != nil {
		checkError(t, err, n)
		return
	}
	out, err := AppendMessage(nil, m)
	if err != nil {
		t.Fatalf("decoded %+v cannot be sent: %v", m, err)
	}
	again, _, err := parseMessage(out)
	if err != nil {
		t.Fatalf("%x, sent for %+v, cannot be decoded: %v", out, m, err)
	}
	if diff := cmp.Diff(m, again, equate); diff != "" {
		t.Errorf("changed on the way (-sent +received):\n%s", diff)
	}
	canonical, err := AppendMessage(nil, again)
	if err != nil || !bytes.Equal(out, canonical) {
		t.Errorf("encoded once %x, twice %x, error %v", out, canonical, err)
	}
}

func checkError(t *testing.T, err error, n int) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v bears no reaction", err)
	}
	if e.Fatal() != (n == 0) {
		t.Errorf("%v: fatal %v, but goes on behind %d bytes", e, e.Fatal(), n)
	}
	b, err := AppendPDU(nil, sender, leastMaxPDULength, e.Notification(1))
	if err != nil {
		t.Fatalf("%v cannot be answered: %v", e, err)
	}
	if _, _, err = parseMessage(b[pduHeaderSize:]); err != nil {
		t.Errorf("answer %x to %v: %v", b, e, err)
	}
}
