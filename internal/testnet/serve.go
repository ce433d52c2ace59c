package testnet

import (
	"io"
	"net"
)

// Serve takes TCP connections to address until the test ends. Each is handled by itself, and closed then.
func (n *Node) Serve(address string, handle func(net.Conn)) {
	n.t.Helper()
	l, err := n.Listen("tcp", address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

// Received tells how many bytes come by the next connection until its end; -1: there was none, for the listener was closed.
func Received(l net.Listener) <-chan int64 {
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		n, _ := io.Copy(io.Discard, c)
		c.Close()
		got <- n
	}()
	return got
}
