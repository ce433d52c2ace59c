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
		out, err := t.lab.Command(ctx, "f", "vtysh", "--vty_socket", filepath.Join(t.lab.Dir("f"), "frr"), "-c", "show mpls ldp neighbor json").CombinedOutput()
		if err != nil {
			return false, fmt.Errorf("vtysh: %w: %s", err, out)
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
