package migrate

import "net"

// Freeze has the kernel seem to say that all connections of l are in repair mode.
func (l *Listener) Freeze() { l.frozen = func(*net.TCPConn) bool { return true } }
