// Package stray finds the server of a connection whose former owners are not all known (Fig 14, claims 8 to 10): who has a packet of it asks
// all servers on the control channel, who has the connection serves the packet and says so, and the kernel's path has the next one. Two
// machines, event in, actions out: Asker and Holder; Loop carries their actions out.
//
//	asker                                      holder
//	   ── stray n: service, flow, frame ─────►  in its socket table? then the frame goes up
//	   ◄────────────────────── holding n ────   and now and then it looks whether the connection is there still
//	entry: flow ► holder
//	   ◄──────────────── holding n, gone ────
//	no entry
//
// A stray that nobody answers for is said three times and then goes up here, so that the stack resets the connection. Words may be lost,
// doubled or late: an answer counts for the stray of its number alone, an entry is asked for again every 30 s and ends with its holder's
// silence, and who has it so has the last word, a reset.
package stray
