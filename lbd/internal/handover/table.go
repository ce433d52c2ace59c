package handover

import (
	"cmp"
	"time"
)

// event is a column of the tables.
type event string

// Events of a giver's transfer.
const (
	onTurn        event = "turn"         // there is room in the window, and a link
	onReady       event = "ready"        // the taker's
	onRefused     event = "refused"      // the taker's
	onExported    event = "exported"     // the application let go
	onNotExported event = "not exported" // it did not
	onFrozen      event = "frozen"       // the state was read
	onNotFrozen   event = "not frozen"   // the kernel did not give it
	onTook        event = "took"         // the taker's, or its verdict; or a newer epoch's offer of the connection to us
	onFailed      event = "failed"       // the taker's, or its verdict "never"
	onUntold      event = "untold"       // the taker's verdict: it cannot tell
	onStop        event = "stop"         // deadline, cancellation, or a newer epoch
	onGone        event = "gone"         // the taker is silent, or was started anew
	onGivenUp     event = "given up"     // nobody answered
)

// Events of a taker's transfer.
const (
	onComing      event = "coming"       // a part of the state
	onState       event = "state"        // the giver's
	onCancel      event = "cancel"       // the giver's, or a newer offer of the flow
	onRestored    event = "restored"     // there is a frozen socket
	onNotRestored event = "not restored" // there is none
	onImported    event = "imported"     // the application has it
	onNotImported event = "not imported" // it has not
	onThawed      event = "thawed"       // it speaks
	onNotThawed   event = "not thawed"   // it does not
	onQuery       event = "query"        // the giver's, on the control channel
)

// Events of both.
const (
	onLinkDown event = "link down"
	onLate     event = "late" // the step's limit is over
)

type cell struct {
	at Step
	on event
}

// giverRule says where a giver's transfer goes, and what is done on the way.
type giverRule struct {
	next Step
	do   []func(*Giver, *giving)
}

// giverTable is all that a giver's transfer does; what is not in it changes nothing. From Sent on the state is the connection: only
// Failed leads back.
func giverTable() map[cell]giverRule {
	type do = []func(*Giver, *giving)
	return map[cell]giverRule{
		{Wanted, onTurn}: {Offered, do{(*Giver).offer}},
		{Wanted, onStop}: {stayed, nil},
		{Wanted, onGone}: {stayed, nil},

		{Offered, onReady}:    {Exporting, do{(*Giver).export}},
		{Offered, onRefused}:  {stayed, nil},
		{Offered, onFailed}:   {stayed, nil},
		{Offered, onLinkDown}: {Wanted, do{(*Giver).requeue}},
		{Offered, onStop}:     {stayed, do{(*Giver).cancel}},
		{Offered, onGone}:     {stayed, do{(*Giver).cancel}},

		{Exporting, onExported}:    {Freezing, do{(*Giver).pass, (*Giver).freeze}},
		{Exporting, onNotExported}: {stayed, do{(*Giver).cancel}},
		{Exporting, onFailed}:      {stayed, do{(*Giver).giveBack}},
		{Exporting, onLinkDown}:    {stayed, do{(*Giver).giveBack}},
		{Exporting, onLate}:        {stayed, do{(*Giver).giveBack, (*Giver).cancel}},
		{Exporting, onStop}:        {stayed, do{(*Giver).giveBack, (*Giver).cancel}},
		{Exporting, onGone}:        {stayed, do{(*Giver).giveBack, (*Giver).cancel}},

		{Freezing, onFrozen}:    {Sent, do{(*Giver).sendState}},
		{Freezing, onNotFrozen}: {stayed, do{(*Giver).unpass, (*Giver).giveBack, (*Giver).cancel}},
		{Freezing, onFailed}:    {stayed, do{(*Giver).unpass, (*Giver).thaw, (*Giver).giveBack}},
		{Freezing, onLinkDown}:  {stayed, do{(*Giver).unpass, (*Giver).thaw, (*Giver).giveBack}},
		{Freezing, onLate}:      {stayed, do{(*Giver).unpass, (*Giver).thaw, (*Giver).giveBack, (*Giver).cancel}},
		{Freezing, onStop}:      {stayed, do{(*Giver).unpass, (*Giver).thaw, (*Giver).giveBack, (*Giver).cancel}},
		{Freezing, onGone}:      {stayed, do{(*Giver).unpass, (*Giver).thaw, (*Giver).giveBack, (*Giver).cancel}},

		{Sent, onTook}:     {given, do{(*Giver).close}},
		{Sent, onFailed}:   {stayed, do{(*Giver).unpass, (*Giver).thaw, (*Giver).giveBack}},
		{Sent, onLinkDown}: {Doubting, do{(*Giver).query}},
		{Sent, onLate}:     {Doubting, do{(*Giver).query}},
		{Sent, onGone}:     {lost, do{(*Giver).close}},

		{Doubting, onTook}:    {given, do{(*Giver).close}},
		{Doubting, onFailed}:  {stayed, do{(*Giver).unpass, (*Giver).thaw, (*Giver).giveBack}},
		{Doubting, onLate}:    {Doubting, do{(*Giver).query}},
		{Doubting, onUntold}:  {lost, do{(*Giver).close}},
		{Doubting, onGone}:    {lost, do{(*Giver).close}},
		{Doubting, onGivenUp}: {lost, do{(*Giver).close}},
	}
}

// takerRule says where a taker's transfer goes, and what is done on the way.
type takerRule struct {
	next Step
	do   []func(*Taker, *taking)
}

// takerTable is all that a taker's transfer does; what is not in it changes nothing. What has ended is remembered: a state that comes
// for it is answered with Failed, a query with a verdict.
func takerTable() map[cell]takerRule {
	type do = []func(*Taker, *taking)
	return map[cell]takerRule{
		{Held, onComing}:   {Receiving, nil},
		{Held, onState}:    {Restoring, do{(*Taker).restore}},
		{Held, onCancel}:   {never, do{(*Taker).open}},
		{Held, onLinkDown}: {never, do{(*Taker).open}},
		{Held, onLate}:     {never, do{(*Taker).failed, (*Taker).open}},
		{Held, onQuery}:    {never, do{(*Taker).verdictNever, (*Taker).open}},

		{Receiving, onComing}:   {Receiving, nil},
		{Receiving, onState}:    {Restoring, do{(*Taker).restore}},
		{Receiving, onCancel}:   {never, do{(*Taker).failed, (*Taker).open}},
		{Receiving, onLinkDown}: {never, do{(*Taker).open}},
		{Receiving, onLate}:     {never, do{(*Taker).failed, (*Taker).open}},

		{Restoring, onRestored}:    {Importing, do{(*Taker).importInto}},
		{Restoring, onNotRestored}: {never, do{(*Taker).failed, (*Taker).open}},
		{Restoring, onLate}:        {never, do{(*Taker).discard, (*Taker).failed, (*Taker).open}},

		{Importing, onImported}:    {Thawing, do{(*Taker).goLive}},
		{Importing, onNotImported}: {never, do{(*Taker).discard, (*Taker).failed, (*Taker).open}},
		{Importing, onLate}:        {never, do{(*Taker).discard, (*Taker).failed, (*Taker).open}},

		{Thawing, onThawed}:    {live, do{(*Taker).open, (*Taker).took}},
		{Thawing, onNotThawed}: {never, do{(*Taker).discard, (*Taker).failed, (*Taker).open}},
	}
}

// Limits are times and sizes. Zero fields take the defaults.
type Limits struct {
	Window int // of a batch: transfers at a time, default 8: each waits for the others
	States int // bytes of states sent and not yet answered, of all batches; above it no transfer begins, default 64 MiB
	Held   int // transfers at a time of a taker, default 4,096
	Asked  int // flows asked for at a time by themselves, default 1,024
	Ended  int // transfers that a taker remembers, default 262,144

	Give     time.Duration // from Ready to the state sent, default 400 ms
	Wait     time.Duration // from Ready to the state, or between its parts, default 500 ms
	Restore  time.Duration // default 1 s
	Import   time.Duration // default 1 s
	Answer   time.Duration // from the state sent to its answer, before the giver asks on the channel, default 2.5 s
	Doubt    time.Duration // how long it asks, default 5 s
	Remember time.Duration // how long a taker knows what became of a transfer, default 60 s

	Backoff    time.Duration // the first pause between two words on the channel, or two links; it doubles, default 20 ms
	MaxBackoff time.Duration // default 500 ms
}

func (l Limits) withDefaults() Limits {
	l.Window = cmp.Or(l.Window, 8)
	l.States = cmp.Or(l.States, 64<<20)
	l.Held = cmp.Or(l.Held, 4096)
	l.Asked = cmp.Or(l.Asked, 1024)
	l.Ended = cmp.Or(l.Ended, 1<<18)
	l.Give = cmp.Or(l.Give, 400*time.Millisecond)
	l.Wait = cmp.Or(l.Wait, 500*time.Millisecond)
	l.Restore = cmp.Or(l.Restore, time.Second)
	l.Import = cmp.Or(l.Import, time.Second)
	l.Answer = cmp.Or(l.Answer, 2500*time.Millisecond)
	l.Doubt = cmp.Or(l.Doubt, 5*time.Second)
	l.Remember = cmp.Or(l.Remember, time.Minute)
	l.Backoff = cmp.Or(l.Backoff, 20*time.Millisecond)
	l.MaxBackoff = cmp.Or(l.MaxBackoff, 500*time.Millisecond)
	return l
}

// pause is how long to wait after the nth word, n from 1.
func (l Limits) pause(n int) time.Duration {
	p := l.Backoff
	for ; n > 1 && p < l.MaxBackoff; n-- {
		p *= 2
	}
	return min(p, l.MaxBackoff)
}

// earlier is the earlier of two times, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// over says that a limit, where there is one, is over.
func over(limit, now time.Time) bool { return !limit.IsZero() && !limit.After(now) }
