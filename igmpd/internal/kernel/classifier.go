package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/internal/steer"
	"github.com/vishvananda/netlink"
)

const (
	attachmentName = "manycast-igmpd"
	pinPrefix      = "ingress-" // of an attachment's pin, followed by the interface's name

	// Elements of igmpd_counts, enum count.
	countNoOwner     = 0
	countAccelerated = 1
	countTables      = 2
)

// classifier is the BPF program in front of the tables, with its maps and where it is attached. All of it is pinned: it goes
// on without a process.
type classifier struct {
	dir      string
	log      *slog.Logger
	objects  igmpdObjects
	plans    *steer.Maps
	attached map[string]attachment // by interface name
	exits    map[steer.Owner]igmpdExit
}

type attachment struct {
	ifindex int
	*bpfnet.Attachment
}

// newClassifier loads the program with this process' configuration over the maps that are pinned, if any. Packets meet the
// former program until the first set.
func newClassifier(config Config, log *slog.Logger) (*classifier, error) {
	if err := bpfnet.PinDir(config.BPFFS); err != nil {
		return nil, err
	}
	spec, err := classifierSpec(config)
	if err != nil {
		return nil, err
	}
	c := &classifier{dir: config.BPFFS, log: log, attached: map[string]attachment{}}
	replaced, err := bpfnet.LoadPinned(spec, config.BPFFS, &c.objects)
	if replaced {
		log.Warn("pinned BPF maps have another layout and are replaced", "directory", config.BPFFS)
	}
	if err != nil {
		return nil, fmt.Errorf("load igmpd's BPF program (needs CAP_BPF, CAP_NET_ADMIN and Linux 6.1; mode = \"source\" does without): %w", err)
	}
	if c.plans, err = steer.NewMaps(c.mapsByName()); err == nil {
		c.exits, err = c.readExits()
	}
	if err != nil {
		c.objects.Close()
		return nil, err
	}
	return c, nil
}

func classifierSpec(config Config) (*ebpf.CollectionSpec, error) {
	spec, err := loadIgmpd()
	if err != nil {
		return nil, fmt.Errorf("igmpd's BPF program: %w", err)
	}
	var accelerate uint8
	if config.Accelerator {
		accelerate = 1
	}
	constants := map[string]any{"igmpd_mark": config.Mark, "igmpd_mark_mask": config.MarkMask, "igmpd_accelerate": accelerate}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("igmpd's BPF program: %s: %w", name, err)
		}
	}
	owners := uint32(config.OwnersMax()) + 1
	spec.Maps["igmpd_exits"].MaxEntries = owners
	spec.Maps["igmpd_owners"].MaxEntries = owners
	return spec, nil
}

func (c *classifier) mapsByName() map[string]*ebpf.Map {
	o := c.objects.igmpdMaps
	return map[string]*ebpf.Map{"steer_groups": o.SteerGroups, "steer_current": o.SteerCurrent, "steer_plans": o.SteerPlans,
		"steer_slots": o.SteerSlots, "steer_entries": o.SteerEntries, "steer_users": o.SteerUsers}
}

// set makes want what the classifier does. Exits are there before a plan names their owner, and go after it.
func (c *classifier) set(want desired, links map[string]*netlink.LinkAttrs) error {
	exits := map[steer.Owner]igmpdExit{}
	for owner, e := range want.exits {
		exits[owner] = exitOf(links[e.name])
	}
	ports := map[igmpdPort]uint32{}
	in := map[string]*netlink.LinkAttrs{}
	for p := range want.ports {
		if link := links[p.name]; link != nil {
			in[p.name] = link
			ports[newPort(p.group, link.Index)] = 1
		}
	}
	errs := []error{c.putExits(exits), c.setPlans(want.plans), c.setPorts(ports), c.attach(in), c.pruneExits(exits)}
	return errors.Join(errs...)
}

func (c *classifier) setPlans(plans map[netip.Addr]*steer.Plan) error {
	plans = maps.Clone(plans)
	for group, p := range plans {
		if p == nil {
			nobody, err := steer.Compile(nil)
			if err != nil {
				return err
			}
			plans[group] = nobody
		}
	}
	return c.plans.Set(plans)
}

// attach brings the program to the interfaces in, and off all others.
func (c *classifier) attach(in map[string]*netlink.LinkAttrs) error {
	var errs []error
	for name, link := range in {
		errs = append(errs, c.attachTo(name, link))
	}
	for name, a := range c.attached {
		if in[name] == nil {
			errs = append(errs, a.Detach())
			delete(c.attached, name)
		}
	}
	return errors.Join(append(errs, c.removeStale())...)
}

func (c *classifier) attachTo(name string, link *netlink.LinkAttrs) error {
	if a, ok := c.attached[name]; ok {
		if a.ifindex == link.Index {
			return nil
		}
		if err := a.Detach(); err != nil {
			c.log.Debug("classifier of an interface that is gone", "interface", name, "err", err)
		}
		delete(c.attached, name)
	}
	if link.EncapType != "ether" {
		return fmt.Errorf("interface %s is no Ethernet but %s: igmpd's classifier cannot read its packets, use mode = \"source\"", name, link.EncapType)
	}
	a, err := bpfnet.Attach(c.objects.IgmpdClassify, link.Index, bpfnet.Ingress, c.options(name))
	if err != nil {
		return fmt.Errorf("classifier on interface %s: %w", name, err)
	}
	c.attached[name] = attachment{link.Index, a}
	return nil
}

func (c *classifier) options(name string) bpfnet.Options {
	return bpfnet.Options{Name: attachmentName, Pin: filepath.Join(c.dir, pinPrefix+name)}
}

// removeStale removes attachments that a process before left on interfaces that are not wanted now.
func (c *classifier) removeStale() error {
	return bpfnet.RemovePins(c.dir, pinPrefix, func(name string) bool {
		_, ours := c.attached[strings.TrimPrefix(name, pinPrefix)]
		return ours
	})
}

// remove takes the program off and everything that is pinned away.
func (c *classifier) remove() error {
	errs := []error{c.attach(nil), c.close()}
	errs = append(errs, removePins(c.dir))
	return errors.Join(errs...)
}

// close lets go of everything and leaves it in the kernel.
func (c *classifier) close() error {
	var errs []error
	for _, a := range c.attached {
		errs = append(errs, a.Close())
	}
	return errors.Join(append(errs, c.objects.Close())...)
}

// removePins removes what a classifier left in dir, and dir.
func removePins(dir string) error {
	if dir == "" {
		return nil
	}
	spec, err := loadIgmpd()
	if err != nil {
		return fmt.Errorf("igmpd's BPF program: %w", err)
	}
	return errors.Join(bpfnet.RemovePins(dir, pinPrefix, nil), bpfnet.RemoveMaps(spec, dir), bpfnet.RemovePinDir(dir))
}
