package record

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// version opens every record's text. A reader that does not know it leaves the record alone.
const version = "v=manycast1"

// stringsMax is more than a valid record can have.
const stringsMax = 6 + KeysMax + DestinationsMax + SessionsMax

// Strings are the character-strings of the record's TXT RR, each "field=value" within 255 octets, in one fixed order:
// version, name, address, owner, flag, keys, destinations, sessions, until.
func (r Record) Strings() []string {
	out := []string{version, "name=" + r.Name, "address=" + r.Address.String(), "owner=" + r.Owner, "flag=" + r.flag()}
	for _, k := range r.Keys {
		out = append(out, "key="+k.String())
	}
	for _, p := range r.Destinations {
		out = append(out, "destination="+p.String())
	}
	for _, s := range r.Sessions {
		out = append(out, "session="+s.String())
	}
	if !r.Until.IsZero() {
		out = append(out, "until="+r.Until.UTC().Format(time.RFC3339))
	}
	return out
}

// String is "1a2b3c4d ed25519 BASE64".
func (k Key) String() string {
	return fmt.Sprintf("%08x ed25519 %s", k.ID, base64.StdEncoding.EncodeToString(k.Public))
}

// ParseStrings reads what Strings writes, and nothing else: any other order, spelling or field is an error. A text of some
// other version or purpose is ErrNone.
func ParseStrings(text []string) (Record, error) {
	if len(text) == 0 || text[0] != version {
		return Record{}, ErrNone
	}
	if len(text) > stringsMax {
		return Record{}, fmt.Errorf("record of %d strings, at most %d", len(text), stringsMax)
	}
	var r Record
	for _, s := range text[1:] {
		field, value, _ := strings.Cut(s, "=")
		if len(s) > 255 {
			return Record{}, fmt.Errorf("record: string of %d octets", len(s))
		}
		if err := r.set(field, value); err != nil {
			return Record{}, fmt.Errorf("record: %w", err)
		}
	}
	if err := r.Validate(); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	if !slices.Equal(r.Strings(), text) {
		return Record{}, errors.New("record: fields missing, twice, out of order or in another form than the canonical one")
	}
	return r, nil
}

func (r *Record) set(field, value string) (err error) {
	switch field {
	case "name":
		r.Name = value
	case "address":
		r.Address, err = netip.ParseAddr(value)
	case "owner":
		r.Owner = value
	case "flag":
		r.Private, err = parseFlag(value)
	case "key":
		var k Key
		k, err = ParseKey(value)
		r.Keys = append(r.Keys, k)
	case "destination":
		var p netip.Prefix
		p, err = netip.ParsePrefix(value)
		r.Destinations = append(r.Destinations, p)
	case "session":
		var s Session
		s, err = parseSession(value)
		r.Sessions = append(r.Sessions, s)
	case "until":
		r.Until, err = time.Parse(time.RFC3339, value)
		r.Until = r.Until.UTC()
	default:
		err = fmt.Errorf("unknown field %.20q", field)
	}
	return err
}

func parseFlag(text string) (private bool, err error) {
	if text != "private" && text != "public" {
		return false, fmt.Errorf("flag %.20q: want private or public", text)
	}
	return text == "private", nil
}

// ParseKey reads what String writes.
func ParseKey(text string) (Key, error) {
	f := strings.Fields(text)
	if len(f) != 3 || f[1] != "ed25519" {
		return Key{}, fmt.Errorf("key %.80q: want \"ID ed25519 BASE64\"", text)
	}
	id, err := strconv.ParseUint(f[0], 16, 32)
	if err != nil {
		return Key{}, fmt.Errorf("key identifier %.20q: %w", f[0], errors.Unwrap(err))
	}
	public, err := parsePublic(f[2])
	return Key{ID: uint32(id), Public: public}, err
}

func parsePublic(text string) (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key %.80q: want %d bytes in base64", text, ed25519.PublicKeySize)
	}
	return b, nil
}
