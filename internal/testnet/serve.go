package testnet

import "net"

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
