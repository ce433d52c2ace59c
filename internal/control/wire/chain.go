package wire

import (
	"crypto/sha256"
	"encoding/binary"
)

// Element is one value of a chain of one-way hashes: each is the hash of the one after it (as in S/KEY, RFC 1760). Who knows
// one that its owner has signed can check those that follow, and nobody but the owner can make them.
type Element [16]byte

// Salt makes each chain another one.
type Salt [16]byte

// MaxStep is how many elements may be missing between two that are heard: 25 s of heartbeats each 50 ms. It bounds the work on
// a forged one.
const MaxStep = 512

// Chain has the elements of heartbeats Base to Base+Len.
type Chain struct {
	Salt     Salt
	Base     uint64
	elements []Element
}

// NewChain makes a chain of length heartbeats after base. last is its last, secret element: random.
func NewChain(salt Salt, base uint64, length int, last Element) *Chain {
	c := &Chain{Salt: salt, Base: base, elements: make([]Element, length+1)}
	c.elements[length] = last
	for i := length; i > 0; i-- {
		c.elements[i-1] = before(salt, base+uint64(i), c.elements[i])
	}
	return c
}

// End is the index of the last heartbeat.
func (c *Chain) End() uint64 { return c.Base + uint64(len(c.elements)) - 1 }

// At is the element of a heartbeat between Base and End.
func (c *Chain) At(index uint64) Element { return c.elements[index-c.Base] }

// Anchor is a position that is known to be the owner's.
type Anchor struct {
	Salt    Salt
	Index   uint64
	Element Element
}

// Leads says whether the element with that index is of the anchor's chain: at most MaxStep after it.
func (a Anchor) Leads(index uint64, e Element) bool {
	if index <= a.Index || index-a.Index > MaxStep {
		return false
	}
	for ; index > a.Index; index-- {
		e = before(a.Salt, index, e)
	}
	return e == a.Element
}

// before is the element before the one with that index.
func before(salt Salt, index uint64, e Element) Element {
	const label = "manycast control chain 1"
	var b [len(label) + len(salt) + 8 + len(e)]byte
	n := copy(b[:], label)
	n += copy(b[n:], salt[:])
	binary.BigEndian.PutUint64(b[n:], index)
	copy(b[n+8:], e[:])
	sum := sha256.Sum256(b[:])
	return Element(sum[:len(e)])
}
