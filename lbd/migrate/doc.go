// Package migrate lets the TCP connections of a Go server move to another server while they are open. The user at the other end notices
// nothing: addresses, sequence numbers and whatever is on its way stay as they are. What the server knew about the connection
// travels with it, as bytes of the server's own choice.
//
// That is for servers that share an address, with a balancer in front of them. When the balancer gives some users to another server, or a server
// is to be shut down, their connections would break, or would have to end first. With this package they go along.
//
// # What is needed
//
// A program that runs beside the server, the agent, moves the sockets: it has the privilege for that, the server needs none. The two speak
// over a unix socket (package wire). Manycast's agent is one. Where there is no agent, Listen makes an
// ordinary listener of which all connections stay; it looks for the agent again every second. Nothing else changes for the server.
//
// # Leaving and arriving
//
// A Listener's Accept returns a *Conn. Two kinds of servers use it in two ways.
//
// One of net/http calls ServeHTTP in place of http.Server.Serve. Keep-alive connections then move between requests. See its example for sessions
// that travel along.
//
// Any other server reads and writes as ever, and says by SetMovable when that may be interrupted. When the connection is asked to leave, Read and
// Write return ErrMoving, with counts that are exact. The server stops using the connection, and calls Move with its own bytes, or Stay:
//
//	n, err := c.Read(buffer)
//	state.add(buffer[:n])
//	if errors.Is(err, migrate.ErrMoving) {
//		if err := c.Move(state.bytes()); errors.Is(err, migrate.ErrStays) {
//			continue // the move came to nothing: go on as if nobody had asked
//		}
//		return // somebody else goes on
//	}
//
// On the other server Accept returns it, and Imported the bytes:
//
//	if old, ok := c.Imported(); ok {
//		state, err = parse(old)
//	}
//
// Several goroutines may use the connection: all of them hear ErrMoving, until one calls Move or Stay. Those that wait for something else watch Moving.
//
// # What can go wrong
//
// A connection is never used by two servers, and in one that goes on no byte is lost or doubled, whoever dies when. A move that fails leaves the connection here
// (ErrStays). Where the agent dies in the middle, the kernel says whether the connection may have left already: then it is
// closed here, without a word to its user; else it stays. The bytes of another version of the server are looked at before the
// connection has left the other one (Options.Check).
//
// Deadlines and socket options that the server has set do not travel. Connections of TLS can move as long as the server has not begun to read from them;
// after that their keys, which crypto/tls does not give out, would be missing: say SetMovable(Never) before.
package migrate
