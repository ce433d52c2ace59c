package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var (
	local  = netip.MustParseAddrPort("192.0.2.80:80")
	remote = netip.MustParseAddrPort("[2001:db8::7]:40000")
)

// examples has a message of each type.
func examples() []Message {
	return []Message{
		{Type: Hello, Version: 7, Text: "web", Listens: []netip.AddrPort{local, remote}},
		{Type: Ask, ID: 1, Local: local, Remote: remote},
		{Type: Cancel, ID: 2},
		{Type: Given, ID: 1 << 60, State: []byte("state")},
		{Type: Stays, ID: 4, Text: "busy"},
		{Type: Unknown, ID: 5},
		{Type: Gone, ID: 6},
		{Type: Back, ID: 7},
		{Type: Arrive, ID: 8, Local: remote, Remote: local, State: []byte{}},
		{Type: Arrive, ID: 9, Local: local, Remote: remote, State: bytes.Repeat([]byte("x"), MaxState)},
		{Type: Taken, ID: 10},
		{Type: Refused, ID: 11, Text: ""},
		{Type: Live, ID: 12},
		{Type: Drop, ID: 13},
	}
}

func decode(t testing.TB, d *Decoder, packets [][]byte) (m Message) {
	t.Helper()
	for i, p := range packets {
		var whole bool
		var err error
		if m, whole, err = d.Next(p); err != nil || whole != (i == len(packets)-1) {
			t.Fatalf("packet %d of %d: whole %v, %v", i, len(packets), whole, err)
		}
	}
	return m
}

func TestMessages(t *testing.T) {
	var d Decoder
	for _, m := range examples() {
		packets, err := Encode(m)
		if err != nil {
			t.Fatal(m.Type, err)
		}
		for _, p := range packets {
			if len(p) > MaxPacket {
				t.Errorf("%v: a packet of %d bytes", m.Type, len(p))
			}
		}
		if got := decode(t, &d, packets); !reflect.DeepEqual(got, m) {
			t.Errorf("%v: got %.200v", m.Type, got)
		}
	}
}

func TestEncodeBounds(t *testing.T) {
	for name, m := range map[string]Message{
		"state":    {Type: Given, State: make([]byte, MaxState+1)},
		"listens":  {Type: Hello, Listens: make([]netip.AddrPort, MaxListens+1)},
		"address":  {Type: Ask},
		"no type":  {},
		"internal": {Type: more},
	} {
		if _, err := Encode(m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	packets, err := Encode(Message{Type: Stays, Text: strings.Repeat("r", 1000)})
	if err != nil {
		t.Fatal(err)
	}
	if m := decode(t, new(Decoder), packets); len(m.Text) != MaxText {
		t.Errorf("a reason of %d bytes", len(m.Text))
	}
}

func TestLaterVersions(t *testing.T) {
	packets, err := Encode(Message{Type: Hello, Version: 9, Text: "web"})
	if err != nil {
		t.Fatal(err)
	}
	packets[0] = append(packets[0], "what version 9 adds"...)
	if m := decode(t, new(Decoder), packets); m.Version != 9 || m.Text != "web" {
		t.Errorf("got %v", m)
	}
	if _, _, err := new(Decoder).Next(append([]byte{200}, make([]byte, 30)...)); !errors.Is(err, ErrType) {
		t.Errorf("an unknown type: %v", err)
	}
}

func TestMalformed(t *testing.T) {
	header := func(t Type, rest ...byte) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{byte(t)}, 1), rest...)
	}
	begin := header(Given, 0, 0, 0, 4, 'a')
	for name, packets := range map[string][][]byte{
		"empty":                   {{}},
		"half a header":           {{byte(Gone), 0, 0}},
		"bytes too many":          {header(Gone, 1)},
		"half an address":         {header(Ask, 4, 1, 2)},
		"an address of 5 bytes":   {header(Ask, 5, 1, 2, 3, 4, 5, 0, 80)},
		"a text that ends":        {header(Stays, 3, 'a')},
		"too many addresses":      {header(Hello, 0, 1, 0, 200)},
		"a state of 4 GiB":        {header(Given, 255, 255, 255, 255, 'a')},
		"a state above the bound": {header(Given, 0, 16, 0, 1, 'a')},
		"more than announced":     {header(Given, 0, 0, 0, 1, 'a', 'b')},
		"nothing at first":        {header(Given, 0, 0, 0, 4)},
		"more of nothing":         {header(more, 'a')},
		"too much more":           {begin, header(more, 'b', 'c', 'd', 'e')},
		"no more":                 {begin, header(more)},
		"another in between":      {begin, header(Gone)},
		"more of another":         {begin, binary.BigEndian.AppendUint64([]byte{byte(more)}, 2)},
	} {
		var d Decoder
		var err error
		for _, p := range packets {
			_, _, err = d.Next(p)
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecoder feeds packets, each with its length in two bytes before it. What is decoded encodes to the same message.
func FuzzDecoder(f *testing.F) {
	for _, m := range examples() {
		packets, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		var stream []byte
		for _, p := range packets {
			stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(p))), p...)
		}
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var d Decoder
		for len(stream) >= 2 {
			n := min(int(binary.BigEndian.Uint16(stream)), len(stream)-2)
			m, whole, err := d.Next(stream[2 : 2+n])
			stream = stream[2+n:]
			if errors.Is(err, ErrMalformed) {
				return
			}
			if err != nil || !whole {
				continue
			}
			packets, err := Encode(m)
			if err != nil {
				t.Fatalf("%v was decoded and cannot be encoded: %v", m, err)
			}
			if again := decode(t, new(Decoder), packets); !reflect.DeepEqual(again, m) {
				t.Fatalf("%v became %v", m, again)
			}
		}
		if len(d.begun.State) > MaxState {
			t.Fatalf("%d bytes are held", len(d.begun.State))
		}
	})
}
