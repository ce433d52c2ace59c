// Package relay stands in front of a server that knows nothing of moving connections, and has its users' connections move: it owns their sockets,
// by package migrate, and speaks to the server, the backend, by sockets of its own.
//
// It carries bytes, and changes none. What it reads from one side it writes to the other side, in order, on one connection to the backend for
// each of the user's; no two users share one. So nobody can smuggle a request past it: it takes no decision by what a request says, and a backend that
// finds other requests in the bytes than package exchange does finds them in the same user's bytes, relay or not. What exchange says decides one thing
// alone, when a connection may leave; there it is strict, for a front that carries several users' requests on one connection.
//
// A connection moves between two requests: the old relay closes its connection to the backend, idle by then, and the new one opens
// one to its own backend when the next request comes. What travels is how many requests there were. All else stays where it is: TLS, HTTP/2,
// tunnels, other protocols; the agents forward its packets. A connection within a request waits as long as the agent has patience.
package relay
