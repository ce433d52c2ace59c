package scenario

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The second service has the VIP in common with the first, and nothing else: port 53, its own group, key, pool and allocation.
const secondPort = "53"

// secondPool are its servers. The application runs on s2, too, and must not be asked there.
var secondPool = []string{"s1", "s3"}

// askSecond lets every user ask the second service: its owner there has to answer, whoever is its owner in the first.
func (m *multicast) askSecond(ctx context.Context, phase string) error {
	apart := 0
	for _, u := range m.users {
		if m.second.owner(u) != m.web.owner(u) {
			apart++
		}
	}
	wrong, err := m.askAll(ctx, net.JoinHostPort(m.vars["vip"], secondPort), m.second)
	if err != nil {
		return err
	}
	m.check("second service on the VIP: "+phase, len(wrong) == 0 && apart > 0,
		"%d of %d users answered by their owner, who is another than the first service's for %d%s",
		len(m.users)-len(wrong), len(m.users), apart, some(wrong))
	return nil
}

// checkSecondJoins: both routers forward the second service by joins of all its servers, signed with its own group's key.
func (m *multicast) checkSecondJoins(ctx context.Context) error {
	group := m.vars["secondgroup"]
	own, err := m.keyID(group)
	if err != nil {
		return err
	}
	first, err := m.keyID(m.vars["group"])
	if err != nil {
		return err
	}
	var want []string
	for _, s := range secondPool {
		a, err := m.lab.Topology().Address(s, "eth0")
		if err != nil {
			return err
		}
		want = append(want, a.Addr().String()+" "+own)
	}
	slices.Sort(want)
	for _, r := range m.routers {
		var got []string
		for deadline := time.Now().Add(time.Second); ; {
			c, err := ask(ctx, m.lab.Dir(r))
			if err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
			got = c.signers(group)
			if slices.Equal(got, want) || time.Now().After(deadline) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		m.check("second service's joins at "+r, own != first && slices.Equal(got, want), "of %s, signed: %s", group, strings.Join(got, ", "))
	}
	return nil
}

// signers are the requesters of a group's joins, each with the id of the key that signed.
func (c counters) signers(group string) (out []string) {
	for _, j := range c.Joins {
		if j.Group == group {
			out = append(out, j.Requester+" "+j.KeyID)
		}
	}
	slices.Sort(out)
	return out
}

// keyID is the id of the group's key that the servers were handed.
func (m *multicast) keyID(group string) (string, error) {
	file, err := m.groupKey(secondPool[0], group)
	if err != nil {
		return "", err
	}
	_, id, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".key"), "-")
	return id, nil
}

// checkSecondStays: whatever happens to the first service's servers, nobody moves in the second.
func (m *multicast) checkSecondStays() {
	moves := m.second.all()
	var reasons []string
	for _, v := range moves {
		reasons = append(reasons, v.Reason)
	}
	m.check("second service stays", len(moves) == 1, "%s", strings.Join(reasons, "; "))
}
