package steer

import (
	"errors"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Maps puts plans into the maps of bpf/steer.h. One goroutine at a time may use it.
type Maps struct{}

// NewMaps takes the maps of a loaded collection by their names in bpf/steer.h (the map Collection.Maps will do). What pinned
// maps hold already is taken over.
func NewMaps(byName map[string]*ebpf.Map) (*Maps, error) { return nil, errors.ErrUnsupported }

// Set makes plans the plans of all groups: new ones are added, changed ones switched in one step, others removed. Plans that
// are in the maps already are not touched.
func (m *Maps) Set(plans map[netip.Addr]*Plan) error { return errors.ErrUnsupported }

// Remove removes all groups.
func (m *Maps) Remove() error { return m.Set(nil) }
