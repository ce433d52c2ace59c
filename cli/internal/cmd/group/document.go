package group

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/internal/record"
)

// documentsMax bounds how many groups one file may have.
const documentsMax = 4096

// document is a group in a file: what `group create` is told, and what `group show -o yaml` and `group export` write.
type document struct {
	Name     string        `yaml:"name"`
	Owner    string        `yaml:"owner"`
	Private  *bool         `yaml:"private"`
	Flag     string        `yaml:"flag"` // private or public, in place of private
	Address  string        `yaml:"address"`
	For      string        `yaml:"for"`
	Until    string        `yaml:"until"` // RFC 3339, in place of for
	Sessions []string      `yaml:"sessions"`
	Members  []string      `yaml:"members"` // to whom the private key is handed over
	Keys     []documentKey `yaml:"keys"`    // of a group that is there, or was: nobody makes keys by hand
}

type documentKey struct {
	ID        string `yaml:"id"`
	Algorithm string `yaml:"algorithm"`
	Public    string `yaml:"public"`
}

// spec is a document that was read and checked; create makes its group.
type spec struct {
	create createOptions
	record record.Record // without an address where one is to be found, without keys where they are to be made
}

// parse reads YAML documents, one group each. Keys that do not exist are refused.
func (t *tools) parse(data []byte, base createOptions) ([]spec, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var specs []spec
	for n := 1; ; n++ {
		var d *document
		err := dec.Decode(&d)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if d == nil {
			continue // nothing between two "---"
		}
		if len(specs) == documentsMax {
			return nil, fmt.Errorf("more than %d groups", documentsMax)
		}
		s, err := d.spec(base)
		if err != nil {
			return nil, fmt.Errorf("document %d: group %q: %w", n, d.Name, err)
		}
		specs = append(specs, s)
	}
	if len(specs) == 0 {
		return nil, errors.New("no group in it")
	}
	return specs, distinct(specs)
}

// distinct refuses two groups of one name or address.
func distinct(specs []spec) error {
	names, addresses := map[string]bool{}, map[netip.Addr]bool{}
	for _, s := range specs {
		r := s.record
		if names[r.Name] {
			return fmt.Errorf("group %s is there twice", r.Name)
		}
		if r.Address.IsValid() && addresses[r.Address] {
			return fmt.Errorf("address %s is there twice", r.Address)
		}
		names[r.Name], addresses[r.Address] = true, true
	}
	return nil
}

func (d document) spec(base createOptions) (spec, error) {
	o := base
	if d.Name == "" {
		return spec{}, errors.New("name is missing")
	}
	o.name, o.owner, o.address, o.sessions = fullName(d.Name), d.Owner, d.Address, d.Sessions
	o.recipients = keybus.Recipients{Members: d.Members}
	var err error
	if o.private, err = d.private(); err != nil {
		return spec{}, err
	}
	o.public = !o.private
	if o.lasting, o.until, err = d.end(); err != nil {
		return spec{}, err
	}
	if !o.until.IsZero() && !o.until.After(o.Now()) {
		return spec{}, fmt.Errorf("until %s: that is over", d.Until)
	}
	s := spec{create: o}
	if s.record, err = o.record(); err != nil {
		return spec{}, err
	}
	for _, k := range d.Keys {
		key, err := record.ParseKey(strings.Join([]string{k.ID, k.Algorithm, k.Public}, " "))
		if err != nil {
			return spec{}, err
		}
		s.record.Keys = append(s.record.Keys, key)
	}
	if len(s.record.Keys) == 0 {
		return s, nil
	}
	if !s.record.Address.IsValid() {
		return spec{}, errors.New("keys are of an address: address is missing")
	}
	return s, s.record.Validate()
}

func (d document) private() (bool, error) {
	if d.Private == nil && d.Flag == "" {
		return false, errors.New("private (true or false) is missing")
	}
	if d.Private == nil {
		if d.Flag != "private" && d.Flag != "public" {
			return false, fmt.Errorf("flag %.20q: want private or public", d.Flag)
		}
		return d.Flag == "private", nil
	}
	if d.Flag != "" && (d.Flag == "private") != *d.Private {
		return false, fmt.Errorf("private %t and flag %.20q contradict each other", *d.Private, d.Flag)
	}
	return *d.Private, nil
}

// end is when a temporary group ends: so long after it was made, or at that time.
func (d document) end() (lasting time.Duration, until time.Time, err error) {
	if d.For != "" && d.Until != "" {
		return 0, until, errors.New("for and until exclude each other")
	}
	if d.For != "" {
		lasting, err = time.ParseDuration(d.For)
		if err == nil && lasting == 0 {
			err = errors.New("want a second or more")
		}
		if err != nil {
			err = fmt.Errorf("for %.40q: %w", d.For, err)
		}
	}
	if d.Until != "" {
		if until, err = time.Parse(time.RFC3339, d.Until); err != nil {
			err = fmt.Errorf("until: %w", err)
		}
		until = until.UTC()
	}
	return lasting, until, err
}

// sameKeys compares sets of keys: their order is when they were made, and of no meaning to a file.
func sameKeys(a, b []record.Key) bool {
	has := func(list []record.Key, k record.Key) bool {
		return slices.ContainsFunc(list, func(o record.Key) bool { return o.ID == k.ID && bytes.Equal(o.Public, k.Public) })
	}
	for _, k := range a {
		if !has(b, k) {
			return false
		}
	}
	return len(a) == len(b)
}
