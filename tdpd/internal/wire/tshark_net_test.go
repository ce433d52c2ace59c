package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// everything is one of each message, with every parameter somewhere.
func everything() []example {
	return slices.Concat(notifications, hellos, initializations, keepAlives, capabilities, addresses, addressWithdraws,
		labelMappings, labelRequests, labelWithdraws, labelReleases, labelAbortRequests, vendorPrivates, unknowns)
}

// wildcard says whether a message has a typed wildcard: tshark 4.0 takes it for a pseudowire.
func wildcard(m Message) bool {
	var fec FEC
	switch m := m.(type) {
	case Notification:
		fec = m.FEC
	case LabelRequest:
		fec = m.FEC
	case LabelRelease:
		fec = m.FEC
	}
	if len(fec) == 0 {
		return false
	}
	_, typed := fec[0].(TypedWildcard)
	return typed
}

// Another implementation's decoder finds nothing wrong with any of our messages, and sees in them what we meant. KeepAlives stand
// behind each: tshark 4.0 reads ten bytes from the beginning of every FEC, whatever its length.
func TestNetTshark(t *testing.T) {
	pcap := newCapture()
	var types []string
	for _, x := range everything() {
		if wildcard(x.message) {
			continue
		}
		b, err := AppendPDU(nil, sender, 0, x.message, KeepAlive{}, KeepAlive{})
		if err != nil {
			t.Fatalf("%s: %v", x.file, err)
		}
		if x.message.Type() == TypeHello {
			pcap.datagram(b)
		} else {
			pcap.segment(b)
		}
		types = append(types, fmt.Sprintf("0x%04x,0x0201,0x0201", uint16(x.message.Type())))
	}
	path := filepath.Join(t.TempDir(), "ldp.pcap")
	if err := os.WriteFile(path, pcap.bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	text := tshark(t, "-r", path, "-V", "-O", "ldp")
	for line := range strings.Lines(text) {
		for _, bad := range []string{"alformed", "Expert Info (Error", "Expert Info (Warning", "Error processing", "Error in", "Dissector bug"} {
			if strings.Contains(line, bad) && !strings.Contains(line, "GTSM is not supported") { // of every targeted Hello
				t.Errorf("tshark says %q", line)
			}
		}
	}
	for _, line := range lines(t, "tshark.txt") {
		if !strings.Contains(text, line) {
			t.Errorf("tshark does not see %q", line)
		}
	}
	got := strings.Fields(tshark(t, "-r", path, "-T", "fields", "-e", "ldp.msg.type"))
	if !slices.Equal(types, got) {
		t.Errorf("tshark sees the types %v, want %v", got, types)
	}
	if t.Failed() {
		t.Log(text)
	}
}

func tshark(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark (tools/setup test installs it): %v", err)
	}
	return string(out)
}

// capture is a pcap file of IP packets between two LSRs: datagrams, and one TCP stream. Checksums are left out.
type capture struct {
	bytes    []byte
	sequence uint32
	packets  uint32
}

func newCapture() *capture {
	const linkTypeIP = 101
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0) // version 2.4, zone, accuracy, snap length
	return &capture{bytes: binary.LittleEndian.AppendUint32(b, linkTypeIP), sequence: 1}
}

func (c *capture) segment(pdu []byte) {
	tcp := binary.BigEndian.AppendUint16(nil, 40000)
	tcp = binary.BigEndian.AppendUint16(tcp, Port)
	tcp = binary.BigEndian.AppendUint32(tcp, c.sequence)
	tcp = append(tcp, 0, 0, 0, 1, 5<<4, 0x18, 0xff, 0xff, 0, 0, 0, 0) // acknowledged, header of 5 words, PSH and ACK, window
	c.sequence += uint32(len(pdu))
	c.packet(6, append(tcp, pdu...))
}

func (c *capture) datagram(pdu []byte) {
	udp := binary.BigEndian.AppendUint16(nil, Port)
	udp = binary.BigEndian.AppendUint16(udp, Port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(pdu)))
	c.packet(17, append(append(udp, 0, 0), pdu...))
}

func (c *capture) packet(protocol byte, payload []byte) {
	ip := binary.BigEndian.AppendUint16([]byte{0x45, 0xc0}, uint16(20+len(payload)))
	ip = append(ip, 0, 0, 0, 0, 255, protocol, 0, 0)
	for _, a := range []string{"10.0.0.1", "10.0.0.2"} {
		ip = append(ip, netip.MustParseAddr(a).AsSlice()...)
	}
	ip = append(ip, payload...)
	c.bytes = binary.LittleEndian.AppendUint32(c.bytes, c.packets)
	c.packets++
	c.bytes = append(c.bytes, 0, 0, 0, 0)
	c.bytes = binary.LittleEndian.AppendUint32(c.bytes, uint32(len(ip)))
	c.bytes = append(binary.LittleEndian.AppendUint32(c.bytes, uint32(len(ip))), ip...)
}
