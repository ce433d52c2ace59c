// Package kernel is what dynamic TCP does to sockets and packets (Fig 20, 21), on the user's host and on the servers: programs at a
// control group write and read the option of the handshake, programs at interfaces carry segments to where a connection is. Neither
// application nor kernel hears of it. What is set outlives the process that set it, until it is closed without keeping.
package kernel
