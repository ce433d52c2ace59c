package forger

import (
	"crypto/ed25519"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// Kind is what is wrong with a message.
type Kind string

// Kinds of messages, of an attacker on the path, who has seen a true one, and of one off it, who knows addresses and ports.
const (
	Replay       Kind = "replay"        // a true message once more
	WrongKey     Kind = "wrong key"     // of the true tag and cookie, signed by another key under the true one's name
	OwnKey       Kind = "own key"       // signed by another key under its own name
	Redirected   Kind = "redirected"    // a true one whose destination is another published address
	Outside      Kind = "outside"       // to an address that is not published
	Past         Kind = "past"          // signed an hour ago
	Future       Kind = "future"        // signed an hour ahead
	LastWord     Kind = "last word"     // a move after which there would be no other
	OtherService Kind = "other service" // about the connection to another VIP
	Flood        Kind = "flood"         // as wrong key, many of one connection at once

	Malformed   Kind = "malformed" // cut off, of another version, or nothing at all
	Unknown     Kind = "unknown"   // about a port that no connection has
	WrongTag    Kind = "wrong tag"
	WrongCookie Kind = "wrong cookie" // the tag was guessed
)

// Reasons are those for which a user's host has to refuse each kind; of a flood it may be any of them.
var Reasons = map[Kind][]string{
	Replay: {"stale"}, WrongKey: {"bad_signature"}, OwnKey: {"unknown_key"}, Redirected: {"bad_signature"}, Outside: {"outside_set"},
	Past: {"expired"}, Future: {"future"}, LastWord: {"future"}, OtherService: {"unknown_connection"}, Flood: {"bad_signature", "too_many", "lost"},
	Malformed: {"malformed"}, Unknown: {"unknown_connection"}, WrongTag: {"wrong_tag"}, WrongCookie: {"wrong_cookie"},
}

// SourcePort is what attackers' datagrams come from, and no server's do.
const SourcePort = 1

// OnPath are the kinds of who is on the path, but for the flood.
var OnPath = []Kind{Replay, WrongKey, OwnKey, Redirected, Outside, Past, Future, LastWord, OtherService}

// OffPath are the kinds of who is not.
var OffPath = []Kind{Malformed, Unknown, WrongTag, WrongCookie}

// beyond is how far a forged sequence, which is a time in milliseconds, is above the true one.
const beyond = 1000

// Forge makes a message of a kind out of a true one. Published is an address that is another server's, evil one that is not published.
func Forge(kind Kind, seen Message, key ed25519.PrivateKey, published, evil netip.AddrPort, now time.Time) ([]byte, error) {
	m := seen.Later(beyond).At(now).From(seen.Destination()).To(published)
	var err error
	switch kind {
	case Replay:
		m = seen
	case WrongKey, Flood:
		m, err = m.Signed(key, false)
	case OwnKey:
		m, err = m.Signed(key, true)
	case Redirected: // its signature is there and true, of other bytes
	case Outside:
		m, err = m.To(evil).Signed(key, false)
	case Past:
		m, err = m.At(now.Add(-time.Hour)).Signed(key, false)
	case Future:
		m, err = m.At(now.Add(time.Hour)).Signed(key, false)
	case LastWord:
		m, err = m.Later(math.MaxUint64-m.Sequence()).Signed(key, false)
	case OtherService:
		m, err = m.About(netip.AddrPortFrom(m.VIP().Addr().Next(), m.VIP().Port())).Signed(key, false)
	default:
		err = fmt.Errorf("message %q is nobody's on the path", kind)
	}
	return m[:], err
}

// Guess makes a message of a kind about a connection whose ends and tag are known and nothing else; n makes each another one.
func Guess(kind Kind, user, vip, from, to netip.AddrPort, tag uint16, n uint64, now time.Time) ([]byte, error) {
	m := New(user, vip, from, to, now).Known(tag, n*0x9e3779b97f4a7c15+1)
	switch kind {
	case Malformed:
		switch n % 3 {
		case 0:
			return m[:Bytes-1], nil
		case 1:
			m[offVersion] = 2
		case 2:
			m[offMagic] = 0
		}
	case Unknown:
		m.put(offUser, offUserPort, netip.AddrPortFrom(user.Addr(), 1+uint16(n%1000))) // below those that connections have
	case WrongTag:
		m = m.Known(tag+1+uint16(n%65535), m.Cookie())
	case WrongCookie:
	default:
		return nil, fmt.Errorf("message %q takes one on the path", kind)
	}
	return m[:], nil
}
