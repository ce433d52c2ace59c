package transport_test

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/packetsock"
	"github.com/manycast/manycast/internal/testnet"
)

func sendUDP(to, from string) error {
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("stray"))
	return errors.Join(err, c.Close())
}

// joinGroup makes the kernel report a membership.
func joinGroup(group netip.Addr, address string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.SetsockoptIPMreq(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{
		Multiaddr: group.As4(), Interface: netip.MustParseAddr(address).As4(),
	})
	return errors.Join(err, unix.Close(fd))
}

// eachIGMP calls f for each IGMP packet for a group of ours that the interface brings, until the test ends.
func eachIGMP(t *testing.T, node *testnet.Node, ifname string, f func()) {
	t.Helper()
	var file *os.File
	err := node.Do(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		file, err = packetsock.Open(packetsock.Config{Ifindex: ifi.Index, Name: "igmp", AllMulticast: true, Filter: []bpf.Instruction{
			bpf.LoadAbsolute{Off: 9, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_IGMP, SkipTrue: 1},
			bpf.RetConstant{Val: math.MaxUint16},
			bpf.RetConstant{Val: 0},
		}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { file.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 65536); ; {
			if _, err := file.Read(b); err != nil {
				return
			}
			f()
		}
	}()
}
