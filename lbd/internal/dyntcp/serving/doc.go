// Package serving is a server's part in dynamic TCP (Fig 20, 21): it keeps the programs of package kernel at what the services say, has what is
// known of a connection travel with its state, and announces each that was taken over until its user is heard here.
//
//	agent ── services ──► Loop ── Set ──► kernel.Server
//	mover ── freeze, thaw, restore ──► Sockets ── state with tag, cookie, sequence, places ──► the other server's Sockets
//	                      │ held, released, gone, took                     kernel.Server: adopt, follow
//	                      ▼                                                      │ heard
//	                    Loop: movement.Announcer ◄────────────────────────────────┘
//	                      └── signed changes of destination, UDP ──► the user's host
package serving
