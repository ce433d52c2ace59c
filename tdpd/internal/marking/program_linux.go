package marking

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// program is the loaded program with its maps, and where it is attached. What is pinned goes on without a process. One goroutine at a time
// may use it.
type program struct {
	objects  markObjects
	vips     *vips.Maps
	pins     string                     // empty: it ends with the process
	attached map[int]*bpfnet.Attachment // by the interface's index
}

const (
	attachmentName = "manycast-tdpd"
	pinPrefix      = "ingress-" // the interface's index follows, for names may hold dots
)

// openProgram loads the program over the maps that a process before has pinned, if any: what is in them holds until others are set. It needs
// CAP_BPF and CAP_NET_ADMIN.
func openProgram(c Config) (*program, error) {
	spec, err := loadMark()
	if err != nil {
		return nil, fmt.Errorf("tdpd's marking program: %w", err)
	}
	if err := errors.Join(spec.Variables["mark_base"].Set(c.Mark), spec.Variables["mark_mask"].Set(c.Mask)); err != nil {
		return nil, fmt.Errorf("tdpd's marking program: %w", err)
	}
	p := &program{pins: c.Pins, attached: map[int]*bpfnet.Attachment{}}
	if p.pins == "" {
		err = spec.LoadAndAssign(&p.objects, nil)
	} else {
		if err := bpfnet.PinDir(p.pins); err != nil {
			return nil, err
		}
		_, err = bpfnet.LoadPinned(spec, p.pins, &p.objects)
	}
	if err != nil {
		return nil, fmt.Errorf("load tdpd's marking program (needs CAP_BPF, CAP_NET_ADMIN and Linux 6.1): %w", err)
	}
	m := p.objects.markMaps
	if p.vips, err = vips.New(map[string]*ebpf.Map{
		"steer_groups": m.SteerGroups, "steer_current": m.SteerCurrent, "steer_plans": m.SteerPlans,
		"steer_slots": m.SteerSlots, "steer_entries": m.SteerEntries, "steer_users": m.SteerUsers, "vips6": m.Vips6, "vips_split": m.VipsSplit,
	}); err != nil {
		return nil, errors.Join(err, p.objects.Close())
	}
	return p, nil
}

// attach has the program on the interfaces of these names that are there, and takes it off all others, be it a former process' work. What a
// process before has left on one of them is replaced in one step.
func (p *program) attach(names []string) error {
	var errs []error
	wanted := map[int]bool{}
	for _, name := range names {
		i, err := net.InterfaceByName(name)
		if err != nil {
			continue // it may come
		}
		if len(i.HardwareAddr) != 6 {
			errs = append(errs, fmt.Errorf("interface %s is no Ethernet: its packets cannot be marked", name))
			continue
		}
		wanted[i.Index] = true
		if p.attached[i.Index] != nil {
			continue
		}
		options := bpfnet.Options{Name: attachmentName}
		if p.pins != "" {
			options.Pin = filepath.Join(p.pins, pinPrefix+strconv.Itoa(i.Index))
		}
		a, err := bpfnet.Attach(p.objects.MarkUsers, i.Index, bpfnet.Ingress, options)
		if err != nil {
			errs = append(errs, fmt.Errorf("marking program on interface %s: %w", name, err))
			continue
		}
		p.attached[i.Index] = a
	}
	for index, a := range p.attached {
		if !wanted[index] {
			delete(p.attached, index)
			errs = append(errs, a.Detach())
		}
	}
	if p.pins != "" {
		errs = append(errs, bpfnet.RemovePins(p.pins, pinPrefix, func(name string) bool {
			index, err := strconv.Atoi(name[len(pinPrefix):])
			return err == nil && wanted[index]
		}))
	}
	return errors.Join(errs...)
}

// refuse makes these the VIPs whose users are told that nobody serves them.
func (p *program) refuse(list map[netip.Addr]vips.Refusal) error {
	refused := func(vip netip.Addr) bool { return list[vip] != vips.Drop }
	var errs []error
	for vip := range list {
		if refused(vip) {
			errs = append(errs, p.objects.MarkRefuse.Put(vip.As16(), uint32(1)))
		}
	}
	var gone [][16]byte
	var key [16]byte
	var value uint32
	it := p.objects.MarkRefuse.Iterate()
	for it.Next(&key, &value) {
		if !refused(netip.AddrFrom16(key).Unmap()) {
			gone = append(gone, key)
		}
	}
	errs = append(errs, it.Err())
	for _, key := range gone {
		errs = append(errs, p.objects.MarkRefuse.Delete(key))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("VIPs whose users are refused: %w", err)
	}
	return nil
}

// close lets go of the program. Without keep it comes off all interfaces, and what is pinned goes.
func (p *program) close(keep bool) error {
	var errs []error
	for _, a := range p.attached {
		if keep {
			errs = append(errs, a.Close())
		} else {
			errs = append(errs, a.Detach())
		}
	}
	errs = append(errs, p.objects.Close())
	if !keep && p.pins != "" {
		errs = append(errs, removePins(p.pins))
	}
	return errors.Join(errs...)
}

// removePins takes off and removes what a process has left under pins, and the fast path's directory above where that has nothing.
func removePins(pins string) error {
	spec, err := loadMark()
	if err != nil {
		return fmt.Errorf("tdpd's marking program: %w", err)
	}
	return errors.Join(bpfnet.RemovePins(pins, pinPrefix, nil), bpfnet.RemoveMaps(spec, pins), bpfnet.RemovePinDir(pins), bpfnet.RemovePinDir(filepath.Dir(pins)))
}

// counters adds up what the CPUs counted.
func (p *program) counters() (c Counters, err error) {
	for i, to := range []*uint64{&c.Marked, &c.Nobody, &c.Refused, &c.Outsider} {
		var each []uint64
		if err := p.objects.MarkCounts.Lookup(uint32(i), &each); err != nil {
			return Counters{}, fmt.Errorf("counters: %w", err)
		}
		for _, n := range each {
			*to += n
		}
	}
	return c, nil
}
