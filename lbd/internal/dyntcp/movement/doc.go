// Package movement is how a user's host follows a live connection from server to server (Fig 20, 21): two state machines. Announcer is
// on the server that has taken a connection over, and says so until it hears the user; Follower is on the user's host, and believes
// it or not. Both are pure: events and the time go in by methods, actions come out, Next says when Tick is due.
//
//	announcer of SN                                  follower
//	   ── change n: tag, cookie, S1 ► SN ──(lost)
//	   ── change n ───────────────────────────────►  cheap checks, the signature last: Rewrite to SN
//	   ◄───────────────── the user's next segment    to SN
//	done: no more of it
//
// # Who says what, and when it counts
//
// A connection's moves are numbered by the time, each later than the one before (NextSequence). The number travels with the connection from server
// to server, and the follower takes no move but a later one, and none of a time that is yet to come: what is lost, doubled or overtaken changes
// nothing but the time it takes, and nobody can have the last word for good. There is no acknowledgement: the
// user's first segment at the new destination is one, for nobody sends there who was not told.
//
// But one who was there before may be there still. When a connection comes back to a server whose user has not followed it away
// (A ► B ► A), the user's segments at A prove nothing: B's word may be on its way, and would lead the user to B. So a server knows
// the places where the user may be: the last one that was proven, all that were announced since, and those before for as long as
// segments to them may be on their way. A segment at a new destination that is none of these proves that the move has arrived; at
// one of these it does when it was sent after all that was said before had left the network: 2 x Limits.Lifetime after the move began.
// Until then the announcer goes on, and then wants one more (Listen). Places travel with the connection, too.
//
// A user's host may sleep, and hear nothing: an announcer whose row of messages is over goes on slowly, for as long as the connection
// lives. A segment that others have to send on, because the user is still where it was, begins a row anew. So does one that comes when the move has arrived: what was heard was forged, or the user was led back by a message
// that somebody has held.
//
//	announcing  took       announcing  Send; a later move takes the place of an earlier one, which is superseded
//	announcing  due        announcing  Send; Listen, once, when segments prove something
//	announcing  heard      arrived     Report, if it proves it
//	announcing  given up   slow        Report
//	slow        due        slow        Send, at the rate that all have together
//	slow        heard      arrived     Report, if it proves it
//	slow        elsewhere  announcing  Send, if the row began a while ago: its user may never follow
//	arrived     elsewhere  announcing  Send, if nothing that was sent before the proof can be on its way
//	any         held       held        says nothing: the connection is being given away
//	held        released   as before   it was not given away
//	any         gone                   Report, if there was none
//
// # Seam of the server
//
// The caller gives Took when the connection is live here, signed with the service's key; Heard for segments of the user, from a program that
// sees where they were sent; Held before the connection's state leaves (a giver's freeze) and Released if it stays, so that no
// move is announced by two servers; Gone when the connection is over or is another server's. It hands Sequence and Places on with
// the state. At first they are 0, and the VIP and what the SYN-ACK named.
//
// # Seam of the user's host
//
// The caller gives Opened when the handshake has shown that the server knows the extension, Closed when the connection is over,
// Received for datagrams that the program let pass, Set for what is known of a service. Rewrite is to be carried out in order.
package movement
