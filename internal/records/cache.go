package records

import (
	"errors"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/record"
)

const (
	negativeTTL = 5 * time.Second // how long "there is none" holds
	failureTTL  = time.Second     // how long after a failure the next try comes
	ttlMin      = time.Second     // a server that says 0 is asked no more often
	entriesMax  = 4096
)

// Cache keeps what was answered. It is pure and belongs to one goroutine; Wanted are the questions that it has.
type Cache struct {
	ttlMax  time.Duration
	entries map[netip.Addr]*entry
	wanted  []Question
}

// Question asks for an address' record. One that has been there before is asked for ahead of all others: anybody may make up
// groups, and must not keep the keys of those in use from being renewed.
type Question struct {
	Address netip.Addr
	Known   bool
}

// entry is an address' record, or that there is none, until its time is over.
type entry struct {
	asking  bool
	used    bool // since it was fetched or last asked for
	found   bool
	failed  bool // nobody could say
	known   bool // it was found once, and nobody has said since that there is none
	record  record.Record
	fetched time.Time
	until   time.Time // zero: never answered
	refresh time.Time
}

// NewCache makes an empty cache that keeps nothing longer than ttlMax.
func NewCache(ttlMax time.Duration) *Cache {
	return &Cache{ttlMax: ttlMax, entries: make(map[netip.Addr]*entry)}
}

// Status is what is known of an address.
type Status int

// Statuses.
const (
	Unknown Status = iota // not asked yet, or nobody could say: an answer may come
	None                  // there is no record, or no room to ask for it
	Found
)

// Record answers from memory, and notes a question where memory does not do. What is found may be used before until.
func (c *Cache) Record(now time.Time, address netip.Addr) (r record.Record, until time.Time, s Status) {
	e := c.entries[address]
	if e == nil {
		if len(c.entries) >= entriesMax && !c.evict(now) {
			return record.Record{}, time.Time{}, None
		}
		e = &entry{}
		c.entries[address] = e
	}
	if !now.Before(e.until) {
		c.ask(address, e)
		return record.Record{}, time.Time{}, Unknown
	}
	e.used = true
	switch {
	case e.failed: // the next try may find it
		return record.Record{}, time.Time{}, Unknown
	case !e.found:
		return record.Record{}, time.Time{}, None
	}
	return e.record, e.until, Found
}

// Lacks says that a record lacks a key: it may be older than the key, and is asked for again, at most every few seconds. It returns
// whether an answer may come.
func (c *Cache) Lacks(now time.Time, address netip.Addr) bool {
	e := c.entries[address]
	if e == nil || !e.asking && now.Sub(e.fetched) < negativeTTL {
		return false
	}
	c.ask(address, e)
	return true
}

func (c *Cache) ask(address netip.Addr, e *entry) {
	if !e.asking {
		e.asking = true
		c.wanted = append(c.wanted, Question{address, e.known})
	}
}

// evict makes room for one entry: any that is out of date, else any without a record.
func (c *Cache) evict(now time.Time) bool {
	for address, e := range c.entries {
		if !e.asking && (!now.Before(e.until) || !e.found) {
			delete(c.entries, address)
			return true
		}
	}
	return false
}

// Wanted returns the questions to be asked, each once until Put has its answer.
func (c *Cache) Wanted() []Question {
	w := c.wanted
	c.wanted = nil
	return w
}

// Answer is what a source said about an address.
type Answer struct {
	Address netip.Addr
	Record  record.Record
	TTL     time.Duration
	Err     error
}

// Put takes an answer. After a failure the record known before holds on until its own time is over.
func (c *Cache) Put(now time.Time, a Answer) {
	e := c.entries[a.Address]
	if e == nil {
		return
	}
	e.asking = false
	switch {
	case a.Err == nil:
		ttl := min(max(a.TTL, ttlMin), c.ttlMax)
		*e = entry{found: true, known: true, record: a.Record, fetched: now, until: now.Add(ttl), refresh: now.Add(ttl * 3 / 4)}
	case errors.Is(a.Err, record.ErrNone):
		*e = entry{fetched: now, until: now.Add(negativeTTL)}
	case e.found && now.Before(e.until):
		e.fetched, e.refresh = now, now.Add(failureTTL)
	default:
		*e = entry{failed: true, known: e.known, fetched: now, until: now.Add(failureTTL)}
	}
}

// Tick asks for records in use before their time is over, asks again where nobody could say, and forgets what is out of date.
func (c *Cache) Tick(now time.Time) {
	for address, e := range c.entries {
		switch {
		case e.asking:
		case !now.Before(e.until) && e.failed && e.used && now.Sub(e.until) < failureTTL:
			e.used = false
			c.ask(address, e)
		case !now.Before(e.until):
			delete(c.entries, address)
		case e.found && e.used && !now.Before(e.refresh):
			c.ask(address, e)
		}
	}
}
