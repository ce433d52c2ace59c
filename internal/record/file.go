package record

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// fileMax bounds a file of records, in bytes.
const fileMax = 4 << 20

// file is the YAML form, one document a record.
type file struct {
	Name         string         `yaml:"name"`
	Address      netip.Addr     `yaml:"address"`
	Owner        string         `yaml:"owner"`
	Flag         string         `yaml:"flag"`
	Keys         []fileKey      `yaml:"keys,omitempty"`
	Destinations []netip.Prefix `yaml:"destinations,omitempty"`
	Sessions     []string       `yaml:"sessions,omitempty"`
	Until        string         `yaml:"until,omitempty"` // RFC 3339
}

type fileKey struct {
	ID        string `yaml:"id,omitempty"` // eight hexadecimal digits
	Algorithm string `yaml:"algorithm"`
	Public    string `yaml:"public"` // base64
}

// Marshal writes records as YAML documents, the form of pinned records.
func Marshal(records ...Record) ([]byte, error) {
	if len(records) == 0 {
		return nil, nil
	}
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	for _, r := range records {
		if err := r.Validate(); err != nil {
			return nil, err
		}
		f := file{Name: r.Name, Address: r.Address, Owner: r.Owner, Flag: r.flag()}
		for _, k := range r.Keys {
			f.Keys = append(f.Keys, fileKey{fmt.Sprintf("%08x", k.ID), "ed25519", base64.StdEncoding.EncodeToString(k.Public)})
		}
		f.Destinations = r.Destinations
		for _, s := range r.Sessions {
			f.Sessions = append(f.Sessions, s.String())
		}
		if !r.Until.IsZero() {
			f.Until = r.Until.UTC().Format(time.RFC3339)
		}
		if err := enc.Encode(f); err != nil {
			return nil, fmt.Errorf("write record %s: %w", r.Name, err)
		}
	}
	return buf.Bytes(), enc.Close()
}

// Unmarshal reads YAML documents with one record each. Unknown fields are refused, and two records of one address.
func Unmarshal(text []byte) ([]Record, error) {
	if len(text) > fileMax {
		return nil, fmt.Errorf("%d bytes of records, at most %d", len(text), fileMax)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var out []Record
	seen := map[netip.Addr]bool{}
	for n := 1; ; n++ {
		var f file
		err := dec.Decode(&f)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
		r, err := f.record()
		if err != nil {
			return nil, fmt.Errorf("record %d (%s): %w", n, f.Name, err)
		}
		if seen[r.Address] {
			return nil, fmt.Errorf("record %d (%s): address %s has a record already", n, r.Name, r.Address)
		}
		seen[r.Address] = true
		out = append(out, r)
	}
}

// ReadFile reads the records of a file.
func ReadFile(path string) ([]Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	out, err := Unmarshal(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

func (f file) record() (Record, error) {
	r := Record{Name: f.Name, Address: f.Address, Owner: f.Owner}
	var err error
	if r.Private, err = parseFlag(f.Flag); err != nil {
		return Record{}, err
	}
	if len(f.Keys) > KeysMax || len(f.Sessions) > SessionsMax {
		return Record{}, fmt.Errorf("%d keys and %d sessions, at most %d and %d", len(f.Keys), len(f.Sessions), KeysMax, SessionsMax)
	}
	r.Destinations = f.Destinations
	for _, k := range f.Keys {
		key, err := k.key()
		if err != nil {
			return Record{}, err
		}
		r.Keys = append(r.Keys, key)
	}
	for _, text := range f.Sessions {
		s, err := parseSession(text)
		if err != nil {
			return Record{}, err
		}
		r.Sessions = append(r.Sessions, s)
	}
	if f.Until != "" {
		if r.Until, err = time.Parse(time.RFC3339, f.Until); err != nil {
			return Record{}, fmt.Errorf("until: %w", err)
		}
		r.Until = r.Until.UTC()
	}
	return r, r.Validate()
}

func (k fileKey) key() (Key, error) {
	if k.Algorithm != "ed25519" {
		return Key{}, fmt.Errorf("key algorithm %.20q: want ed25519", k.Algorithm)
	}
	public, err := parsePublic(k.Public)
	if err != nil {
		return Key{}, err
	}
	key := NewKey(public)
	if k.ID != "" {
		id, err := strconv.ParseUint(k.ID, 16, 32)
		if err != nil || uint32(id) != key.ID {
			return Key{}, fmt.Errorf("key id %.20q: the public key's is %08x", k.ID, key.ID)
		}
	}
	return key, nil
}
