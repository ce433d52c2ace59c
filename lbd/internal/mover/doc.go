// Package mover hands live connections over from one server to another (Fig 15): it owns the two machines of package handover, the links with
// other servers, and what is done to sockets, applications and the data plane's gates. One loop has the machines; links and sockets have
// goroutines of their own, which tell it what has happened.
//
//	agent ── views ──► loop: Giver, Taker ──► hands: repair, apps, gates   (a flow's actions one after the other)
//	control channel ──►  ▲   │
//	                     └───┴─► links (TLS)
package mover
