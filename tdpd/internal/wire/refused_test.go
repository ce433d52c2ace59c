package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// cells splits the lines of a table.
func cells(t *testing.T, file string, n int) [][]string {
	t.Helper()
	var rows [][]string
	for _, line := range lines(t, file) {
		row := strings.Split(line, "|")
		if len(row) != n {
			t.Fatalf("%s: %q has not %d cells", file, line, n)
		}
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// Every way in which a message can be wrong, and what RFC 5036 section 3.5.1.2 has an LSR do about it. A good message in front of it and
// one behind it are received where the session goes on.
func TestRefused(t *testing.T) {
	for _, row := range cells(t, "refused.txt", 5) {
		bad := unhex(t, row[0])
		good := unhex(t, "0201 0004 00000007")
		body := append(append([]byte{}, good...), bad...)
		if row[2] == "0" {
			body = append(body, good...)
		}
		var e *Error
		var received int
		for m, err := range (PDU{Body: body}).Messages() {
			if err == nil && m.MessageID() == 7 {
				received++
			} else if e != nil || !errors.As(err, &e) {
				t.Errorf("%s: %+v, error %v", row[4], m, err)
			}
		}
		if e == nil {
			t.Errorf("%s: not refused", row[4])
			continue
		}
		if e.Status.String() != row[1] || e.Fatal() != (row[2] == "1") {
			t.Errorf("%s: %v, fatal %v; want %s, E bit %s", row[4], e, e.Fatal(), row[1], row[2])
		}
		if want := returned(t, row[3]); !bytes.Equal(e.TLV, want) {
			t.Errorf("%s: returned %x, want %x", row[4], e.TLV, want)
		}
		if want := bytes.Count(body, good); received != want {
			t.Errorf("%s: %d messages beside it received, want %d", row[4], received, want)
		}
		about(t, row[4], e, bad)
	}
}

func returned(t *testing.T, cell string) []byte {
	t.Helper()
	if cell == "-" {
		return nil
	}
	return unhex(t, cell)
}

// about checks that an error names the message it is about, where there is as much of it.
func about(t *testing.T, name string, e *Error, b []byte) {
	t.Helper()
	if len(b) < messageHeaderSize {
		return
	}
	if want := MessageType(b[0])<<8 | MessageType(b[1]); e.MessageType != want || e.MessageID != 42 {
		t.Errorf("%s: about message %d of type %#x, want 42, %#x", name, e.MessageID, e.MessageType, want)
	}
	if !strings.Contains(e.Error(), e.Reason) || e.Reason == "" {
		t.Errorf("%s: error %q for %q", name, e.Error(), e.Reason)
	}
}

// Known messages and TLVs are decoded whatever their U bit says.
func TestUBitOfKnown(t *testing.T) {
	m, _, err := parseMessage(unhex(t, "8401 000f 0000002a c100 0007 020001180a0000"))
	r, ok := m.(LabelRequest)
	if err != nil || !ok || len(r.FEC) != 1 || r.FEC[0] != FECElement(prefix("10.0.0.0/24")) {
		t.Errorf("%+v, error %v", m, err)
	}
	if _, _, err = parseMessage(unhex(t, "8401 0008 0000002a c100 0000")); !fatal(err) {
		t.Errorf("malformed with U bit: error %v, want a fatal one", err)
	}
}

// What cannot be framed ends the session, and nothing behind it is read.
func TestStreamsRefused(t *testing.T) {
	for _, row := range cells(t, "refused-streams.txt", 3) {
		var f Framer
		if _, err := f.Write(unhex(t, row[0])); err != nil {
			t.Fatal(err)
		}
		_, ok, err := f.Next()
		if row[1] == "-" {
			if ok || err != nil {
				t.Errorf("%s: PDU %v, error %v; want to wait", row[2], ok, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || ok || e.Status.String() != row[1] || !e.Fatal() {
			t.Errorf("%s: PDU %v, error %v; want %s", row[2], ok, err, row[1])
		}
		_, _ = f.Write(unhex(t, "0001 000e 01010101 0000 0201 0004 00000001"))
		if _, ok, again := f.Next(); ok || !errors.Is(again, err) {
			t.Errorf("%s: goes on with PDU %v, error %v", row[2], ok, again)
		}
	}
}

// What is wrong in a message is answered by one that fits into the same PDU, however long it is.
func TestAnswersFit(t *testing.T) {
	for _, limit := range []uint16{leastMaxPDULength, DefaultMaxPDULength, 0xffff} {
		for n := range int(limit) - minPDULength - tlvHeaderSize + 1 {
			if n > 300 && n < int(limit)-300 {
				continue
			}
			kinds := map[StatusCode][]byte{
				StatusUnknownTLV:            appendRaw(nil, TypeKeepAlive, 42, append([]byte{0x3f, 0xff, byte(n >> 8), byte(n)}, make([]byte, n)...)),
				StatusUnsupportedCapability: appendRaw(nil, TypeCapability, 42, append([]byte{0x3f, 0xff, byte(n >> 8), byte(n)}, make([]byte, n)...)),
			}
			for status, raw := range kinds {
				_, size, err := parseMessage(raw)
				var e *Error
				if !errors.As(err, &e) || e.Status != status || size != len(raw) {
					t.Fatalf("TLV of %d bytes: %v", n, err)
				}
				answer := e.Notification(1)
				if _, err := AppendPDU(nil, sender, limit, answer); err != nil {
					t.Fatalf("TLV of %d bytes in a PDU of %d: %v", n, limit, err)
				}
				if short := n+tlvHeaderSize <= 128; (answer.ReturnedTLVs != nil) != short {
					t.Errorf("TLV of %d bytes: %d returned", n, len(answer.ReturnedTLVs))
				}
			}
		}
	}
}
