package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Programs are the packet programs of an interface, a line each with where it is and its name: those that bpftool tells, and those at tcx, of which Debian 12's does not.
func (n *Node) Programs(ifname string) []string {
	n.t.Helper()
	told, err := n.Command(context.Background(), "bpftool", "net", "show", "dev", ifname).CombinedOutput() // when the test ends, too
	if err != nil {
		n.t.Fatalf("bpftool: %v: %s", err, told)
	}
	var all []string
	for line := range strings.Lines(string(told)) {
		if strings.HasPrefix(line, ifname+"(") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	err = n.Do(func() error {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		at, err := tcxPrograms(i.Index)
		all = append(all, at...)
		return err
	})
	if err != nil {
		n.t.Fatalf("programs of %s: %v", ifname, err)
	}
	return all
}

func tcxPrograms(ifindex int) (all []string, err error) {
	for where, attach := range map[string]ebpf.AttachType{"tcx/ingress": ebpf.AttachTCXIngress, "tcx/egress": ebpf.AttachTCXEgress} {
		is, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: attach})
		if errors.Is(err, unix.EINVAL) {
			return nil, nil // a kernel without tcx
		} else if err != nil {
			return nil, err
		}
		for _, a := range is.Programs {
			p, err := ebpf.NewProgramFromID(a.ID)
			if err != nil {
				return nil, err
			}
			info, err := p.Info()
			p.Close()
			if err != nil {
				return nil, err
			}
			all = append(all, fmt.Sprintf("%s %s", where, info.Name))
		}
	}
	return all, nil
}
