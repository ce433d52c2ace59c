package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// checkForeign looks whether the router of another make has sessions with both core routers, which have been restarted since. Binding users
// is nothing to it.
func (t *tags) checkForeign(ctx context.Context) error {
	var operational []string
	err := t.poll(ctx, "FRR answers", func() (bool, error) {
		out, err := t.vtysh(ctx, "f", "ldpd", "show mpls ldp neighbor json")
		if err != nil {
			return false, err
		}
		if operational, err = operationalAt(out); err != nil {
			return false, err
		}
		return len(operational) == len(cores) || time.Since(t.tally.Spans[len(t.tally.Spans)-1].Start) > 15*time.Second, nil
	})
	if err != nil {
		return err
	}
	t.check("a foreign LDP router has its sessions", len(operational) == len(cores), "FRR has operational ones with %s", strings.Join(operational, ", "))
	return nil
}

// vtysh has a daemon of FRR's at a node execute commands, and returns all that it says to them.
func (s *stage) vtysh(ctx context.Context, node, daemon string, commands ...string) ([]byte, error) {
	argv := []string{"vtysh", "--vty_socket", filepath.Join(s.lab.Dir(node), "frr"), "-d", daemon}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	out, err := s.lab.Command(ctx, node, argv...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("vtysh at %s: %w: %s", node, err, out)
	}
	return out, nil
}

// operationalAt are the neighbors that have sessions, by what FRR answers.
func operationalAt(answer []byte) ([]string, error) {
	var said struct {
		Neighbors []struct {
			ID    string `json:"neighborId"`
			State string `json:"state"`
		} `json:"neighbors"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, fmt.Errorf("FRR's answer: %w: %s", err, answer)
	}
	var up []string
	for _, n := range said.Neighbors {
		if n.State == "OPERATIONAL" {
			up = append(up, n.ID)
		}
	}
	slices.Sort(up)
	return slices.Compact(up), nil
}
