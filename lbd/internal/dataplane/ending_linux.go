package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ending is how connections are closed. The zero Ending is a reset, at once.
type Ending struct {
	// Orderly: the application reads the end behind what it has been sent, as if the user had closed, answers what it has to, and closes. What is
	// there after Grace is reset. It needs CAP_SYS_PTRACE where the application is not this process' user's.
	Orderly bool
	Grace   time.Duration
	// Idle: connections alone that have carried no data for so long, either way, and have none waiting; 0: all.
	Idle time.Duration
}

// EndConnections closes every TCP connection to vip and one of ports whose user is lost, and tells how many it closed. Else it is as
// CloseConnections; an error may be that of some connections alone, which were reset where they were to be closed in order.
func EndConnections(ctx context.Context, vip netip.Addr, ports []Port, lost func(user netip.AddrPort) bool, how Ending) (int, error) {
	if how == (Ending{}) {
		return CloseConnections(ctx, vip, ports, lost)
	}
	diag, err := openUsers()
	if err != nil {
		return 0, err
	}
	defer diag.close()
	found, err := diag.ending(vip, ports, lost, how.Idle)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	var orderlyErr error
	if how.Orderly {
		orderlyErr = readTheEnd(found)
		diag.wait(ctx, vip, ports, found, how.Grace)
	}
	_, err = CloseConnections(ctx, vip, ports, func(user netip.AddrPort) bool {
		_, is := found[user]
		return is && lost(user)
	})
	return len(found), errors.Join(orderlyErr, err)
}

// ending are the connections that are to end: the inodes of their sockets, 0 where nobody has accepted them.
func (d *diag) ending(vip netip.Addr, ports []Port, lost func(netip.AddrPort) bool, idle time.Duration) (map[netip.AddrPort]uint32, error) {
	found := map[netip.AddrPort]uint32{}
	for _, port := range ports {
		local := netip.AddrPortFrom(vip, port.Number)
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			if port.Proto != "tcp" || family == unix.AF_INET && vip.Is6() {
				continue
			}
			var id [sockIDLen]byte
			binary.BigEndian.PutUint16(id[0:], local.Port())
			if err := d.sendFor(infoWanted, family, id); err != nil {
				return nil, fmt.Errorf("read connections of %s: %w", local, err)
			}
			err := d.receive(func(body []byte) {
				s, at, ok := parseSock(body)
				if ok && at == local && !d.own[s.remote.Addr()] && lost(s.remote) && (idle == 0 || isIdle(body, idle)) {
					found[s.remote] = binary.NativeEndian.Uint32(body[inodeAt:])
				}
			})
			if err != nil {
				return nil, fmt.Errorf("read connections of %s: %w", local, err)
			}
		}
	}
	return found, nil
}

// Places in a struct inet_diag_msg and what follows it, and in a struct tcp_info.
const (
	infoWanted = 1 << (infoAttr - 1) // idiag_ext
	infoAttr   = 2                   // INET_DIAG_INFO
	queuesAt   = 4 + sockIDLen + 4   // idiag_rqueue, idiag_wqueue
	inodeAt    = queuesAt + 12
	lastSentAt = 44 // tcpi_last_data_sent, ms
	lastRecvAt = 52 // tcpi_last_data_recv, ms
)

// isIdle reports whether a connection has had no data for so long, and has none waiting. Of a request, which has no tcp_info, it is false.
func isIdle(body []byte, idle time.Duration) bool {
	if binary.NativeEndian.Uint64(body[queuesAt:]) != 0 {
		return false
	}
	for rest := body[messageLen:]; len(rest) >= unix.SizeofNlAttr; {
		size, kind := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if size < unix.SizeofNlAttr || size > len(rest) {
			return false
		}
		if info := rest[unix.SizeofNlAttr:size]; kind == infoAttr && len(info) >= lastRecvAt+4 {
			last := min(binary.NativeEndian.Uint32(info[lastSentAt:]), binary.NativeEndian.Uint32(info[lastRecvAt:]))
			return time.Duration(last)*time.Millisecond >= idle
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return false
}

// wait returns when none of the connections is there any more, or grace is over.
func (d *diag) wait(ctx context.Context, vip netip.Addr, ports []Port, found map[netip.AddrPort]uint32, grace time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := d.ending(vip, ports, func(user netip.AddrPort) bool { _, is := found[user]; return is }, 0)
		if err != nil || len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readTheEnd has the applications read the end of these sockets.
func readTheEnd(sockets map[netip.AddrPort]uint32) error {
	wanted := map[string]bool{}
	for _, inode := range sockets {
		if inode != 0 {
			wanted[fmt.Sprintf("socket:[%d]", inode)] = true
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		name, err := os.Readlink(link)
		if err != nil || !wanted[name] {
			continue // gone, or another user's
		}
		delete(wanted, name) // other descriptors of it are the same socket
		errs = append(errs, shutDescriptor(link))
	}
	if len(wanted) > 0 {
		errs = append(errs, fmt.Errorf("%d connections are reset: their applications' descriptors are not seen (CAP_SYS_PTRACE?)", len(wanted)))
	}
	return errors.Join(errs...)
}

// shutDescriptor shuts the receiving side of /proc/PID/fd/FD.
func shutDescriptor(link string) error {
	parts := strings.Split(link, "/")
	pid, _ := strconv.Atoi(parts[2]) // the pattern has numbers alone
	target, _ := strconv.Atoi(parts[4])
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("application %d: %w", pid, err)
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, target, 0)
	if err != nil {
		return fmt.Errorf("application %d: descriptor %d: %w", pid, target, err)
	}
	defer unix.Close(fd)
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("application %d: shut down descriptor %d: %w", pid, target, err)
	}
	return nil
}
