package rtnl

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// TestNetLossIsToldAtItsEnd: the kernel tells of the first notification that it loses, before those that wait, and of no other until all of those are
// taken. Who looks at the tables when it is told last misses nothing.
func TestNetLossIsToldAtItsEnd(t *testing.T) {
	n := testnet.New(t)
	node := n.Node("a")
	n.Link(node, "eth0", "10.0.0.1/24", n.Node("b"), "eth0", "10.0.0.2/24")
	var m *Monitor
	if err := node.Do(func() (err error) {
		m, err = Listen([]int{unix.RTNLGRP_IPV4_ROUTE}, 4096, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	change := func(what string, third int) {
		t.Helper()
		script := fmt.Sprintf("for i in $(seq 0 199); do echo route %s 10.1.%d.$i/32 via 10.0.0.2; done | ip -batch -", what, third)
		if out, err := node.Run("sh", "-c", script); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	change("add", 0)
	if err := m.Receive(func(Message) {}); !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("more than there is room for: %v", err)
	}
	change("add", 1) // lost, too, and nothing tells
	taken := 0
	for {
		err := m.Receive(func(Message) { taken++ })
		if errors.Is(err, unix.ENOBUFS) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if taken == 0 || taken >= 400 || m.Waiting() {
		t.Errorf("%d of 400 notifications came before the end of the loss was told; more wait: %t", taken, m.Waiting())
	}
	change("del", 0)
	if err := m.Receive(func(Message) {}); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("a new loss: %v", err)
	}
}
