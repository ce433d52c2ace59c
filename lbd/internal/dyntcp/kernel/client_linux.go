package kernel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/internal/cgroup2"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// connectionMapValue is struct connection of bpf/client.bpf.c.
type connectionMapValue struct {
	_           [4]byte // the lock
	Moves       uint32
	Now, Before placeMapValue
	Sequence    uint64
	Cookie      wire.Cookie
	Tag         [2]byte
	_           [6]byte
	Opened      uint64
	Ended       uint64
	ChangeAt    uint64
	Stays       uint64
	First       placeMapValue
	HasOrigins  uint64
}

// prefixMapKey is struct prefix of bpf/client.bpf.c.
type prefixMapKey struct {
	Length, Of uint32
	Address    [16]byte
}

func newPrefix(of uint32, p netip.Prefix) prefixMapKey {
	return prefixMapKey{uint32(32 + 128 - p.Addr().BitLen() + p.Bits()), of, p.Masked().Addr().As16()}
}

// client is the Client of the kernel.
type client struct {
	spec    *ebpf.CollectionSpec
	objects clientObjects
	dir     string
	lock    io.Closer
	hooks   hooks
	ways    *wayWatch
	changes *ring[Change]

	mu sync.Mutex // of destinations: there is one who changes them
}

// OpenClient loads and attaches the user's side in the caller's network namespace, or takes over what a former process has left.
func OpenClient(c Config) (Client, error) {
	u, err := openClient(c)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return u, nil
}

func openClient(c Config) (_ *client, err error) {
	if err := bpfnet.PinDir(c.Bpffs); err != nil {
		return nil, err
	}
	if err := noBridgePorts(c.Interfaces); err != nil {
		return nil, err
	}
	lock, err := bpfnet.LockPinDir(c.Bpffs)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if c.Cgroup == "" {
		if c.Cgroup, err = cgroup2.Root(); err != nil {
			return nil, err
		}
	}
	u := &client{dir: c.Bpffs, lock: lock, hooks: hooks{dir: c.Bpffs}}
	log := logger(c.Log)
	if u.spec, err = clientSpec(); err != nil {
		return nil, err
	}
	if err := loadPinned(u.spec, c.Bpffs, &u.objects, log); err != nil {
		return nil, err
	}
	if u.ways, err = watchWays(c.Interfaces, u.objects.Ways, u.objects.WaysAt, log); err != nil {
		return nil, errors.Join(err, u.objects.Close())
	}
	err = u.hooks.attach(c, programs{u.objects.ClientConnections, u.objects.ClientIngress, u.objects.ClientEgress},
		bpfnet.Options{Name: "manycast-" + filepath.Base(c.Bpffs)}) // another client's is another
	if err == nil {
		u.changes, err = readRing(u.objects.Changes, changesWaiting, parseChange)
	}
	if err != nil {
		u.ways.close()
		return nil, errors.Join(err, u.hooks.close(true), u.objects.Close())
	}
	return u, nil
}

// clientSpec are the programs with their constants.
func clientSpec() (*ebpf.CollectionSpec, error) {
	spec, err := loadClient()
	if err != nil {
		return nil, err
	}
	netns, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	var random [16]byte
	rand.Read(random[:]) // never fails
	secret := [2]uint64{binary.NativeEndian.Uint64(random[:]), binary.NativeEndian.Uint64(random[8:])}
	return spec, errors.Join(spec.Variables["netns"].Set(netns), spec.Variables["secret"].Set(secret))
}

// Set writes where servers may be before it says what services there are. Numbers of services that stay are kept.
func (u *client) Set(services []ClientService) error {
	if err := checkServices(services); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	numbers, err := u.number(services)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	published := make(map[prefixMapKey]uint32)
	for _, s := range services {
		for _, p := range s.Published {
			published[newPrefix(uint32(numbers[newPlace(s.VIP)]), p)] = 1
		}
	}
	for vip := range numbers {
		if err := errors.Join(know(u.objects.Known, knownVIP, vip), know(u.objects.Known, knownPlace, vip)); err != nil {
			return fmt.Errorf("client: %w", err)
		}
	}
	if err := errors.Join(bpfnet.SyncMap(u.objects.Published, published), bpfnet.SyncMap(u.objects.Services, numbers)); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	return nil
}

// number gives each service a number that no other has, or has had until now.
func (u *client) number(services []ClientService) (map[placeMapValue]uint64, error) {
	var (
		vip    placeMapValue
		number uint64
	)
	before, taken := make(map[placeMapValue]uint64), make(map[uint64]bool)
	entries := u.objects.Services.Iterate()
	for entries.Next(&vip, &number) {
		before[vip], taken[number] = number, true
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read services: %w", err)
	}
	next := uint64(1)
	numbers := make(map[placeMapValue]uint64, len(services))
	for _, s := range services {
		n, ok := before[newPlace(s.VIP)]
		for ; !ok && taken[next]; next++ {
		}
		if !ok {
			n, taken[next] = next, true
		}
		numbers[newPlace(s.VIP)] = n
	}
	return numbers, nil
}

// Connections reads the table, each connection as a whole.
func (u *client) Connections() ([]Connection, error) {
	var (
		key   flowMapKey
		value connectionMapValue
		flows []Flow
	)
	entries := u.objects.Connections.Iterate()
	for entries.Next(&key, &value) {
		flows = append(flows, key.flow())
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("client: read connections: %w", err)
	}
	all := make([]Connection, 0, len(flows))
	for _, f := range flows {
		c, err := u.Connection(f)
		if err == nil {
			all = append(all, c)
		} else if !errors.Is(err, ErrGone) {
			return nil, err
		}
	}
	return all, nil
}

// Connection reads one.
func (u *client) Connection(flow Flow) (Connection, error) {
	v, err := u.read(flow)
	if err != nil {
		return Connection{}, err
	}
	return v.connection(flow), nil
}

func (u *client) read(flow Flow) (v connectionMapValue, err error) {
	err = u.objects.Connections.LookupWithFlags(newFlowMapKey(flow), &v, ebpf.LookupLock)
	if errors.Is(err, ebpf.ErrKeyNotExist) || v.Ended != 0 {
		err = ErrGone
	}
	if err != nil {
		return connectionMapValue{}, fmt.Errorf("client: connection of %s: %w", flow, err)
	}
	return v, nil
}

func (v connectionMapValue) connection(flow Flow) Connection {
	return Connection{
		Flow: flow, Tag: binary.BigEndian.Uint16(v.Tag[:]), Cookie: v.Cookie, Destination: v.Now.addrPort(), Before: v.Before.addrPort(),
		Sequence: v.Sequence, Moves: v.Moves, Opened: time.Duration(min(v.Opened, math.MaxInt64)),
	}
}

// moved is what the programs read after a change of destination.
func (v connectionMapValue) moved(is Connection) connectionMapValue {
	v.Moves, v.Now, v.Sequence, v.HasOrigins = is.Moves, newPlace(is.Destination), is.Sequence, 1
	v.ChangeAt, v.Stays = 0, 0
	if is.Before.IsValid() {
		v.Before = newPlace(is.Before)
	}
	return v
}

// SetDestination has the new place's segments taken before any is sent there. A connection that ends meanwhile may count as one that has not, until
// TIME-WAIT is over and its entry goes, with all that is in it.
func (u *client) SetDestination(flow Flow, cookie wire.Cookie, to netip.AddrPort, sequence uint64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	v, err := u.read(flow)
	if err != nil {
		return err
	}
	was := v.connection(flow)
	if err := checkMove(was, cookie, to, sequence); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	is := was.moved(to, sequence)
	place, known := newPlace(to), u.objects.Known
	err = errors.Join(know(known, knownPlace, place), know(known, knownOrigin, place), u.objects.Origins.Put(origin(flow, to), newPlace(flow.VIP)))
	if err != nil {
		return fmt.Errorf("client: destination %s of %s: %w", to, flow, err)
	}
	err = u.objects.Connections.Update(newFlowMapKey(flow), v.moved(is), ebpf.UpdateExist|ebpf.UpdateLock)
	if err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			err = ErrGone
		}
		return errors.Join(fmt.Errorf("client: destination %s of %s: %w", to, flow, err), u.forget(was, to))
	}
	if was.Before.IsValid() {
		return u.forget(is, was.Before)
	}
	return nil
}

// origin is the key of what comes from a place.
func origin(flow Flow, from netip.AddrPort) flowMapKey {
	return newFlowMapKey(Flow{User: flow.User, VIP: from})
}

// forget ends that segments from a place are taken, unless the connection is there, or was.
func (u *client) forget(c Connection, place netip.AddrPort) error {
	if place == c.Destination || place == c.Before {
		return nil
	}
	if err := bpfnet.Deleted(u.objects.Origins.Delete(origin(c.Flow, place))); err != nil {
		return fmt.Errorf("client: former destination %s of %s: %w", place, c.Flow, err)
	}
	return nil
}

// parseChange reads a struct change of bpf/client.bpf.c.
func parseChange(b []byte) (Change, bool) {
	if len(b) < flowSize+wire.ChangeSize {
		return Change{}, false
	}
	return Change{Flow: parseFlow(b), Message: append([]byte(nil), b[flowSize:flowSize+wire.ChangeSize]...)}, true
}

// Changes ends with the client.
func (u *client) Changes() <-chan Change { return u.changes.out }

// Counters adds up what the CPUs counted.
func (u *client) Counters() (ClientCounters, error) {
	var total ClientCounters
	err := bpfnet.AddCounters(u.objects.Counters, func(c ClientCounters) { total = total.plus(c) })
	total.ChangeLost += u.changes.lost.Load()
	return total, err
}

func (c ClientCounters) plus(d ClientCounters) ClientCounters {
	return ClientCounters{
		c.Offered + d.Offered, c.Agreed + d.Agreed, c.Plain + d.Plain, c.Mismatched + d.Mismatched, c.NotPublished + d.NotPublished,
		c.NoRoom + d.NoRoom, c.TableFull + d.TableFull, c.Sent + d.Sent, c.Received + d.Received, c.Errors + d.Errors, c.Failed + d.Failed,
		c.ResetsAhead + d.ResetsAhead,
		c.ChangeMalformed + d.ChangeMalformed, c.ChangeUnknown + d.ChangeUnknown, c.ChangeTag + d.ChangeTag, c.ChangeCookie + d.ChangeCookie,
		c.ChangeOld + d.ChangeOld, c.ChangePassed + d.ChangePassed, c.ChangeLost + d.ChangeLost,
	}
}

// Close keeps all in place or takes all of it away.
func (u *client) Close(keep bool) error {
	defer u.lock.Close()
	u.ways.close()
	err := errors.Join(u.changes.close(), u.hooks.close(keep), u.objects.Close())
	if keep {
		return err
	}
	return errors.Join(err, bpfnet.RemoveMaps(u.spec, u.dir), bpfnet.RemovePinDir(u.dir))
}
