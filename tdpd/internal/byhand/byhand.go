// Package byhand keeps what the operator has announced by hand, over restarts.
package byhand

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/manycast/manycast/internal/wholefile"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Most is how many paths there are at most: whoever has more wants a routing daemon.
const Most = 1000

// Paths are those that the operator has announced, each prefix once with and once without a label. The zero value has none. Values are not changed, but replaced.
type Paths struct {
	Unicast  []bgp.Path         `json:"unicast"`
	Labelled []bgp.LabelledPath `json:"labelled"`
}

// With has one more, or another one.
func (p Paths) With(one bgp.Path) (Paths, error) {
	p = p.Without(one.Prefix, false)
	p.Unicast = append(p.Unicast, one)
	return p, p.check()
}

// WithLabel is the same of one with a label.
func (p Paths) WithLabel(one bgp.LabelledPath) (Paths, error) {
	p = p.Without(one.Prefix, true)
	p.Labelled = append(p.Labelled, one)
	return p, p.check()
}

// Has says whether a prefix is announced.
func (p Paths) Has(prefix netip.Prefix, labelled bool) bool {
	q := p.Without(prefix, labelled)
	return len(q.Unicast)+len(q.Labelled) < len(p.Unicast)+len(p.Labelled)
}

// Without has one less, if it was there.
func (p Paths) Without(prefix netip.Prefix, labelled bool) Paths {
	if labelled {
		p.Labelled = slices.DeleteFunc(slices.Clone(p.Labelled), func(o bgp.LabelledPath) bool { return o.Prefix == prefix })
	} else {
		p.Unicast = slices.DeleteFunc(slices.Clone(p.Unicast), func(o bgp.Path) bool { return o.Prefix == prefix })
	}
	return p
}

// Into adds them to what the configuration wants. Nobody may tell us what we announce.
func (p Paths) Into(d bgp.Desired) bgp.Desired {
	d.Unicast, d.Labelled, d.VIPs = slices.Concat(d.Unicast, p.Unicast), slices.Concat(d.Labelled, p.Labelled), slices.Clone(d.VIPs)
	for _, one := range p.Unicast {
		d.VIPs = append(d.VIPs, one.Prefix)
	}
	return d
}

func (p Paths) check() error {
	if len(p.Unicast)+len(p.Labelled) > Most {
		return fmt.Errorf("more than %d paths are announced by hand", Most)
	}
	for _, one := range p.Unicast {
		if err := Check(one); err != nil {
			return err
		}
	}
	for _, one := range p.Labelled {
		if err := Check(one.Path); err != nil {
			return err
		}
		if one.Label > 1<<20-1 {
			return fmt.Errorf("label %d: want 0 to 1048575", one.Label)
		}
	}
	return nil
}

// Check returns an error for what cannot be announced.
func Check(p bgp.Path) error {
	switch {
	case !p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked() || p.Prefix.Addr().Is4In6():
		return fmt.Errorf("prefix %v: want one without bits behind its length", p.Prefix)
	case p.Prefix.Bits() == 0:
		return errors.New("a default route is not announced by hand")
	case p.NextHop.IsValid() && (p.NextHop.IsUnspecified() || p.NextHop.IsMulticast() || p.NextHop.IsLoopback()):
		return fmt.Errorf("next hop %v: want an address that packets can go to", p.NextHop)
	case p.Prepend < 0 || p.Prepend > bgp.PrependMost:
		return fmt.Errorf("prepend %d: want 0 to %d", p.Prepend, bgp.PrependMost)
	}
	return nil
}

// Load reads a file; without it there are none.
func Load(path string) (p Paths, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Paths{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Paths{}, fmt.Errorf("what was announced by hand: %s: %w (remove the file to announce nothing)", path, err)
	}
	return p, nil
}

// Save replaces the file.
func (p Paths) Save(path string) error {
	text, err := json.Marshal(p)
	if err == nil {
		err = wholefile.Write(path, text)
	}
	if err != nil {
		return fmt.Errorf("keep what is announced by hand: %w", err)
	}
	return nil
}
