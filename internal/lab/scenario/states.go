package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/service"
)

// transfers says whether connections are transferred under the strategy that is run.
func (h *handover) transfers() bool { return strings.Contains(h.says, string(service.Transfer)) }

// readStates adds how large the states were that servers have sent since their agents' start. One strategy alone has them send any.
func (h *handover) readStates(ctx context.Context, servers ...string) error {
	for _, server := range servers {
		text, err := h.lab.Command(ctx, "ctl", "manycast", "flow", "status", server, "-o", "json").Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		if err != nil {
			return fmt.Errorf("flow status %s: %w", server, err)
		}
		states, err := parseStates(text)
		if err != nil {
			return fmt.Errorf("flow status %s: %w", server, err)
		}
		h.sent.Add(states)
	}
	return nil
}

// parseStates reads what `manycast flow status -o json` says of states.
func parseStates(text []byte) (all report.States, err error) {
	var told []struct {
		Sizes []struct {
			UpTo  uint64 `json:"up_to"`
			Count uint64 `json:"count"`
		} `json:"state_sizes"`
		Max uint64 `json:"state_max"`
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return all, err
	}
	for _, of := range told {
		s := report.States{UpTo: map[uint64]uint64{}, Max: of.Max}
		for _, size := range of.Sizes {
			s.UpTo[size.UpTo] += size.Count
		}
		all.Add(s)
	}
	return all, nil
}

// states is how many were sent under a strategy. The caller holds mu.
func (h *handover) states(strategy string) (n uint64) {
	for _, p := range h.tally.Periods {
		if p.Strategy == strategy {
			n += p.States.Count()
		}
	}
	return n
}
