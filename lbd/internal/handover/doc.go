// Package handover is how live connections go from one server to another: two state machines, Giver and Taker, one value each for all
// transfers of a server in that role. They are pure: events and the time go in by methods, actions come out, Next says when Tick is due.
// The state is the connection: who was given it last has it, and there is no second phase.
//
// # Seam
//
// The caller owns links, sockets, gates and the control channel. It
//
//   - carries out actions: those of one flow in order, each when the one before it is over; those of different flows side by side. It
//     gives the messages of one call to the link together;
//   - says what it hears: [Giver.Received] for messages of links that it dialled, [Taker.Received] and [Taker.Offered] for those of links
//     that it took, LinkUp before the first message of a link, LinkDown after the last, and nothing of a link that another one replaced;
//   - answers Dial with Giver.LinkUp or Giver.LinkDown, and Export, Freeze, Restore, Import and GoLive with their results, in whatever
//     time. Results that come after the transfer went another way mean nothing; the action that undid it (GiveBack, Thaw, Discard) comes
//     behind it in the flow's order;
//   - tells the giver of the members that it hears of: [Giver.Started] with each boot, [Giver.Silent];
//   - knows the allocation, which the machines do not: it names the flows of an Ask, and what an Offer is to be refused for. Before
//     [Taker.Offered] it calls [Giver.Returned]: whoever offers a flow by a newer epoch has it, so one that was given away, and not yet
//     answered for, was taken. A connection that goes live where its user is no more is asked for by the next owner, as any other;
//   - gives who speaks by the link or by the channel, which know it; names inside of messages are not believed.
//
// # Tables
//
// A line is a step, an event, the next step, and what is done: Message! goes over the link, Word* over the control channel. What is not
// here changes nothing. A test reads the tables off the machines and compares.
//
// Giver. Deadline, cancellation and newer epochs are one event, stop.
//
//	wanted     turn          offered    Offer!
//	wanted     stop          stayed
//	wanted     gone          stayed
//	offered    ready         exporting  Export
//	offered    refused       stayed
//	offered    failed        stayed
//	offered    link down     wanted
//	offered    stop          stayed     Cancel!
//	offered    gone          stayed     Cancel!
//	exporting  exported      freezing   Pass, Freeze
//	exporting  not exported  stayed     Cancel!
//	exporting  failed        stayed     GiveBack
//	exporting  link down     stayed     GiveBack
//	exporting  late          stayed     GiveBack, Cancel!
//	exporting  stop          stayed     GiveBack, Cancel!
//	exporting  gone          stayed     GiveBack, Cancel!
//	freezing   frozen        sent       State!
//	freezing   not frozen    stayed     Unpass, GiveBack, Cancel!
//	freezing   failed        stayed     Unpass, Thaw, GiveBack
//	freezing   link down     stayed     Unpass, Thaw, GiveBack
//	freezing   late          stayed     Unpass, Thaw, GiveBack, Cancel!
//	freezing   stop          stayed     Unpass, Thaw, GiveBack, Cancel!
//	freezing   gone          stayed     Unpass, Thaw, GiveBack, Cancel!
//	sent       took          given      Close
//	sent       failed        stayed     Unpass, Thaw, GiveBack
//	sent       link down     doubting   Query*
//	sent       late          doubting   Query*
//	sent       gone          lost       Close
//	doubting   took          given      Close
//	doubting   failed        stayed     Unpass, Thaw, GiveBack
//	doubting   untold        lost       Close
//	doubting   late          doubting   Query*
//	doubting   gone          lost       Close
//	doubting   given up      lost       Close
//
// Taker. A state that comes for what has ended is answered with Failed.
//
//	held       coming        receiving
//	held       state         restoring  Restore
//	held       cancel        never      Open
//	held       query         never      Verdict never*, Open
//	held       link down     never      Open
//	held       late          never      Failed!, Open
//	receiving  state         restoring  Restore
//	receiving  cancel        never      Failed!, Open
//	receiving  link down     never      Open
//	receiving  late          never      Failed!, Open
//	restoring  restored      importing  Import
//	restoring  not restored  never      Failed!, Open
//	restoring  late          never      Discard, Failed!, Open
//	importing  imported      thawing    GoLive
//	importing  not imported  never      Discard, Failed!, Open
//	importing  late          never      Discard, Failed!, Open
//	thawing    thawed        live       Open, Took!
//	thawing    not thawed    never      Discard, Failed!, Open
//
// # Why it holds
//
// Once the state is on its way, two words alone lead back to the giver's own socket: Failed, and the verdict never, by a taker that has
// ended the transfer before it says so, and remembers that. In doubt the giver asks for some seconds, and
// then closes without a word: a connection that nobody has is better than one that two have.
//
// A taker of the same boot that does not know a transfer has forgotten it, for a state is sent only to who was ready for it: so it says that
// it cannot tell, as does one of another boot. Neither says never: it may have had the connection and given it on, and a giver that
// slept for an hour would thaw a second one. So nothing that is promised hangs on a limit of time.
//
// Whoever cannot give a connection now, because it is still on its way here, gives it when it is asked again: there is one transfer of a
// flow at a time on each side. An offer by a newer epoch takes the place of one that has no state yet, never of one that has.
package handover
