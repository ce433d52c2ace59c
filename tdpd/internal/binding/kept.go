package binding

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/wholefile"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// Kept is what a router keeps of bindings over its own restarts: what was said, and the numbers that servers have in its plans, for what is
// in the fast path goes by them.
type Kept struct {
	Bindings []steering.Binding
	Owners   map[netip.Addr]steer.Owner
	At       time.Time // the last Save or Touch; Save does not look at it
}

// File keeps it in a file, which it replaces.
type File string

// Save writes the file.
func (f File) Save(k Kept) error {
	p := &tdpdv1.KeptUsers{}
	for _, b := range k.Bindings {
		one, err := ToProto(b)
		if err != nil {
			return fmt.Errorf("keep bindings of users: %w", err)
		}
		p.Bindings = append(p.Bindings, one)
	}
	for _, a := range slices.SortedFunc(maps.Keys(k.Owners), netip.Addr.Compare) {
		p.Owners = append(p.Owners, &tdpdv1.OwnerNumber{Address: a.AsSlice(), Number: uint32(k.Owners[a])})
	}
	raw, err := proto.Marshal(p)
	if err == nil {
		err = wholefile.Write(string(f), raw)
	}
	if err != nil {
		return fmt.Errorf("keep bindings of users: %w", err)
	}
	return nil
}

// Touch says that what is kept holds now.
func (f File) Touch(now time.Time) error {
	if err := os.Chtimes(string(f), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep bindings of users: %w", err)
	}
	return nil
}

// Load reads what Save wrote; where there is no file, nothing.
func (f File) Load() (Kept, error) {
	k := Kept{Owners: map[netip.Addr]steer.Owner{}}
	raw, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	var p tdpdv1.KeptUsers
	if err == nil {
		err = proto.Unmarshal(raw, &p)
	}
	if info, statErr := os.Stat(string(f)); err == nil {
		if err = statErr; err == nil {
			k.At = info.ModTime()
		}
	}
	if err != nil {
		return k, fmt.Errorf("kept bindings of users in %s: %w", string(f), err)
	}
	for _, one := range p.GetBindings() {
		b, err := FromProto(one)
		if err != nil {
			return Kept{}, fmt.Errorf("kept bindings of users in %s: %w", string(f), err)
		}
		k.Bindings = append(k.Bindings, b)
	}
	for _, n := range p.GetOwners() {
		if a, ok := netip.AddrFromSlice(n.GetAddress()); ok && n.GetNumber() > 0 && n.GetNumber() <= uint32(steer.MaxOwner) {
			k.Owners[a] = steer.Owner(n.GetNumber())
		}
	}
	return k, nil
}

// Remove removes the file.
func (f File) Remove() error {
	if err := os.Remove(string(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
