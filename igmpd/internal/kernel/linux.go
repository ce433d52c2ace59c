package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/vishvananda/netlink"
)

// Linux is the Forwarder of the kernel that it runs on.
type Linux struct {
	config Config
	opener opener
	log    *slog.Logger

	mu         sync.Mutex
	public     *mroute.Socket // of the public table, for upcalls
	tables     map[uint32]*table
	rules      map[rule]bool
	numbers    map[string]int // VIF of an interface, the same in all tables
	adopted    map[int]int    // VIF by interface index, as it was found
	forwarded  *sources       // entries made on demand
	refused    *sources       // those of them that forward to nobody
	demand     resolver
	evicted    uint64
	strangers  uint64 // sources that nobody owns
	classifier *classifier
}

// Open takes over what a process before left in the kernel, and changes nothing of it before the first Set, except that it
// clears what another configuration left.
func Open(config Config, log *slog.Logger) (*Linux, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	refusals := config.SourceEntriesMax / 4
	l := &Linux{config: config, opener: newOpener(config.Holder), log: log, tables: map[uint32]*table{}, numbers: map[string]int{},
		adopted: map[int]int{}, forwarded: newSources(config.SourceEntriesMax - refusals), refused: newSources(refusals), demand: newResolver()}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, l.letGo())
	}
	return l, nil
}

func (l *Linux) open() error {
	held, err := l.opener.held()
	if err != nil {
		return err
	}
	found, err := mroute.Dump()
	if err != nil {
		return err
	}
	if l.rules, err = readRules(); err != nil {
		return err
	}
	// The public table first: its VIF numbers count.
	if err := l.adopt(l.config.publicTable(), found); err != nil {
		return err
	}
	for _, t := range held {
		switch {
		case t == l.config.publicTable():
		case l.ownersTable(t):
			err = l.adopt(t, found)
		default:
			err = l.clear(t)
		}
		if err != nil {
			return err
		}
	}
	if err := l.public.ReportWrongInterface(); err != nil {
		l.log.Warn("a source that moves to another interface is not noticed", "err", err)
	}
	if l.config.Mode == ModeSource {
		return removePins(l.config.BPFFS)
	}
	l.classifier, err = newClassifier(l.config, l.log)
	return err
}

func (l *Linux) ownersTable(t uint32) bool {
	return l.config.Mode == ModeOwner && t > l.config.TableBase && t <= l.config.TableBase+uint32(l.config.OwnersMax())
}

// adopt opens a table and takes over what is in it.
func (l *Linux) adopt(number uint32, found map[uint32]mroute.Table) error {
	sock, err := l.opener.open(number)
	if err != nil {
		return err
	}
	if number == l.config.publicTable() {
		l.public = sock
	} else if err := sock.Quiet(); err != nil {
		sock.Close()
		return err
	}
	t, err := adopt(sock, found[number], l.adopted)
	if err != nil {
		sock.Close()
		return err
	}
	l.tables[number] = t
	for n, ifindex := range t.vifs {
		l.adopted[ifindex] = n
	}
	return nil
}

// clear removes a table that another configuration left.
func (l *Linux) clear(number uint32) error {
	sock, err := l.opener.open(number)
	if err != nil {
		return err
	}
	l.log.Info("multicast routing table of another configuration is removed", "table", number)
	return errors.Join(sock.Flush(), sock.Close(), l.opener.release(number))
}

// Set makes s the forwarding state: first what is new, then the classifier's switch, then what is old goes.
func (l *Linux) Set(s State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	vifs, links, missing := l.interfaces(s.Interfaces)
	names := map[string]int{}
	for name := range links {
		names[name] = l.numbers[name]
	}
	want, wrong := compile(s, l.config, names)
	rules := wantedRules(l.config, slices.Sorted(maps.Keys(want.tables)))

	errs := []error{missing, wrong, l.ensureTables(vifs, want), ensureRules(l.rules, rules)}
	l.demand = want.demand
	errs = append(errs, l.revise(vifs))
	if l.classifier != nil {
		errs = append(errs, l.classifier.set(want, links))
	}
	errs = append(errs, pruneRules(l.rules, rules), l.pruneTables(vifs, want))
	l.forget(s.Interfaces)
	return errors.Join(errs...)
}

// interfaces finds the state's interfaces in the kernel and numbers new ones. vifs is by number, links by name; what does not
// exist is in neither.
func (l *Linux) interfaces(list []Interface) (vifs map[int]int, links map[string]*netlink.LinkAttrs, err error) {
	vifs, links = map[int]int{}, map[string]*netlink.LinkAttrs{}
	var errs []error
	for _, i := range list {
		link, err := netlink.LinkByName(i.Name)
		if err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", i.Name, err))
			continue
		}
		number, err := l.number(i.Name, link.Attrs().Index)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		vifs[number] = link.Attrs().Index
		links[i.Name] = link.Attrs()
	}
	return vifs, links, errors.Join(errs...)
}

func (l *Linux) number(name string, ifindex int) (int, error) {
	if n, ok := l.numbers[name]; ok {
		return n, nil
	}
	n, ok := l.adopted[ifindex]
	if !ok {
		var used mroute.VIFs
		for _, n := range l.numbers {
			used |= mroute.VIF(n)
		}
		for _, n := range l.adopted {
			used |= mroute.VIF(n)
		}
		if n = (^used).First(); n >= mroute.VIFsMax {
			return 0, fmt.Errorf("interface %s: the kernel's multicast tables have room for %d interfaces, and all are taken: serve fewer", name, mroute.VIFsMax)
		}
	}
	l.numbers[name] = n
	return n, nil
}

// forget frees the numbers of interfaces that are no longer wanted, after their VIFs were deleted.
func (l *Linux) forget(list []Interface) {
	l.adopted = map[int]int{}
	wanted := map[string]bool{}
	for _, i := range list {
		wanted[i.Name] = true
	}
	maps.DeleteFunc(l.numbers, func(name string, _ int) bool { return !wanted[name] })
}

func (l *Linux) ensureTables(vifs map[int]int, want desired) error {
	var errs []error
	for number, entries := range want.tables {
		if l.tables[number] == nil {
			if err := l.adopt(number, nil); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		if err := l.tables[number].ensure(vifs, entries); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *Linux) pruneTables(vifs map[int]int, want desired) error {
	var errs []error
	for number, t := range l.tables {
		if entries, ok := want.tables[number]; ok {
			errs = append(errs, t.prune(vifs, entries))
			continue
		}
		errs = append(errs, l.removeTable(number))
	}
	return errors.Join(errs...)
}

func (l *Linux) removeTable(number uint32) error {
	t := l.tables[number]
	delete(l.tables, number)
	return errors.Join(t.Flush(), t.Close(), l.opener.release(number))
}

// Secure gives the tables' sockets to a holder that was started after the last one died. There is one request for the tables that
// it has, and no more as long as it has all.
func (l *Linux) Secure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	files := map[uint32]*os.File{}
	for number, t := range l.tables {
		if s, ok := t.routing.(*mroute.Socket); ok {
			files[number] = s.File()
		}
	}
	return l.opener.give(files)
}

// Counters reads the classifier's maps and counts the entries.
func (l *Linux) Counters() (Counters, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Counters{NoOwner: l.strangers, Evicted: l.evicted, Refused: l.refused.len(), Sources: l.refused.len() + l.forwarded.len()}
	if l.classifier == nil {
		return c, nil
	}
	return c, l.classifier.counters(&c)
}

// Run answers upcalls until ctx ends.
func (l *Linux) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		if err := l.public.Interrupt(); err != nil {
			l.log.Error("multicast upcalls cannot be ended", "err", err)
		}
	})()
	for {
		u, err := l.public.ReadUpcall()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("multicast upcalls: %w", err)
		}
		if err := l.upcall(u); err != nil {
			l.log.Debug("multicast upcall", "source", u.Source, "group", u.Group, "err", err)
		}
	}
}

// Close ends the work. Run has to have ended before.
func (l *Linux) Close(keep bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if keep {
		if !l.opener.keeps() {
			l.log.Warn("forwarding by the kernel's tables ends with this process: there is no holder")
		}
		return l.letGo()
	}
	var errs []error
	if l.classifier != nil {
		errs = append(errs, l.classifier.remove())
	}
	errs = append(errs, pruneRules(l.rules, nil))
	for number := range l.tables {
		errs = append(errs, l.removeTable(number))
	}
	return errors.Join(errs...)
}

// letGo closes what this process has open and leaves the kernel as it is.
func (l *Linux) letGo() error {
	var errs []error
	for _, t := range l.tables {
		errs = append(errs, t.Close())
	}
	if l.classifier != nil {
		errs = append(errs, l.classifier.close())
	}
	return errors.Join(errs...)
}

var _ Forwarder = (*Linux)(nil)
