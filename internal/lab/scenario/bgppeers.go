package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// path is one that FRR has.
type path struct {
	Valid     bool   `json:"valid"`
	Stale     bool   `json:"stale"`
	Label     uint32 `json:"remoteLabel"`
	Community struct {
		String string `json:"string"`
	} `json:"community"`
	NextHops []struct {
		IP string `json:"ip"`
	} `json:"nexthops"`
}

func (p path) communities() []string { return strings.Fields(p.Community.String) }

// paths are those of FRR at a node to a prefix, of an IPv4 family.
func (s *stage) paths(ctx context.Context, node, family, prefix string) ([]path, error) {
	out, err := s.vtysh(ctx, node, "bgpd", fmt.Sprintf("show bgp ipv4 %s %s json", family, prefix))
	if err != nil {
		return nil, err
	}
	var all struct {
		Paths []path `json:"paths"`
	}
	if bytes.Contains(out, []byte("not in table")) {
		return nil, nil
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("%s about %s: %w: %s", node, prefix, err, out)
	}
	return all.Paths, nil
}

// Things that directors tell and neighbors have, as text, with how often there are.
type told map[string]int

func (t told) count() (n int) {
	for _, times := range t {
		n += times
	}
	return n
}

// difference is what one of the two has more often than the other.
func (t told) difference(has told) (all []string) {
	for what := range t {
		if t[what] != has[what] {
			all = append(all, fmt.Sprintf("%s: %d times for %d", what, has[what], t[what]))
		}
	}
	for what := range has {
		if t[what] == 0 {
			all = append(all, fmt.Sprintf("%s: %d times for none", what, has[what]))
		}
	}
	slices.Sort(all)
	return all
}

// compare waits until neighbors have just those rules and labels that directors say they tell, and notes what is otherwise.
func (b *bgp) compare(ctx context.Context, phase string) error {
	b.looked++
	var unlike []string
	err := b.poll(ctx, "neighbors have the rules and labels that directors tell", func() (bool, error) {
		unlike = nil
		rules, labels, err := b.tells(ctx)
		if err != nil {
			return false, err
		}
		for _, f := range neighbors {
			hasRules, hasLabels, err := b.has(ctx, f)
			if err != nil {
				return false, err
			}
			for _, d := range slices.Concat(rules.difference(hasRules), labels.difference(hasLabels)) {
				unlike = append(unlike, f+" "+d)
			}
			b.found.FlowSpecSeenAtPeer, b.found.LabelledRoutesSeenAtPeer = len(hasRules), hasLabels.count()
		}
		return len(unlike) == 0, nil
	})
	if err != nil && len(unlike) > 0 && ctx.Err() == nil {
		b.o.Progress.Note("%v%s", err, some(unlike))
		b.unlike = append(b.unlike, fmt.Sprintf("%s: %s", phase, strings.Join(unlike[:min(3, len(unlike))], ", ")))
		return nil
	}
	return err
}

// tells is what all directors' routers say they tell, by manycast bgp.
func (b *bgp) tells(ctx context.Context) (rules, labels told, err error) {
	rules, labels = told{}, told{}
	for _, d := range b.there {
		var paths []struct {
			Prefix   string  `json:"prefix"`
			Neighbor string  `json:"neighbor"`
			Label    *uint32 `json:"label"`
			Rule     *struct {
				Source     string `json:"source"`
				RedirectIP string `json:"redirect_ip"`
			} `json:"rule"`
		}
		if err := b.tell(ctx, &paths, "bgp", "flowspec", "--router", d); err != nil {
			return nil, nil, err
		}
		for _, p := range paths {
			if p.Neighbor == "" && p.Rule != nil {
				rules[rule(p.Prefix, p.Rule.Source, p.Rule.RedirectIP)]++
			}
		}
		if err := b.tell(ctx, &paths, "bgp", "labels", "--router", d); err != nil {
			return nil, nil, err
		}
		hop := b.lab.Topology().Node(d).Addresses["ix"][1].Addr().String()
		for _, p := range paths {
			if p.Neighbor == "" && p.Label != nil {
				labels[label(p.Prefix, *p.Label, hop)]++
			}
		}
	}
	return rules, labels, nil
}

// has is what FRR at a node has of that, of all its neighbors.
func (b *bgp) has(ctx context.Context, node string) (rules, labels told, err error) {
	out, err := b.vtysh(ctx, node, "bgpd", "show bgp ipv4 flowspec detail json")
	if err != nil {
		return nil, nil, err
	}
	if rules, err = decodedRules(out); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", node, err)
	}
	labels = told{}
	for _, s := range b.servers {
		a, err := b.lab.Topology().Address(s, "eth0")
		if err != nil {
			return nil, nil, err
		}
		prefix := a.Addr().String() + "/32"
		paths, err := b.paths(ctx, node, "labeled-unicast", prefix)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range paths {
			for _, hop := range p.NextHops {
				labels[label(prefix, p.Label, hop.IP)]++
			}
		}
	}
	return rules, labels, nil
}

func rule(to, from, redirect string) string {
	return fmt.Sprintf("to %s from %s redirect %s", to, from, redirect)
}

func label(prefix string, label uint32, hop string) string {
	return fmt.Sprintf("%s label %d by %s", prefix, label, hop)
}

// decodedRules reads FRR's "show bgp ipv4 flowspec detail json": an array for each rule, in which each path is an object with what is matched and,
// behind it, one with what is done. "NH:10.3.1.10:0" redirects to that address, and 0 says that it is no copy.
func decodedRules(text []byte) (told, error) {
	rules := told{}
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var one []struct {
			To     string `json:"to"`
			From   string `json:"from"`
			Action string `json:"ecomlist"`
		}
		err := dec.Decode(&one)
		if errors.Is(err, io.EOF) {
			return rules, nil
		}
		if err != nil {
			return nil, fmt.Errorf("FRR's rules: %w: %.200s", err, text)
		}
		to, from := "", ""
		for _, part := range one {
			if part.To != "" || part.From != "" {
				to, from = part.To, part.From
			}
			if part.Action != "" {
				action, _ := strings.CutPrefix(part.Action, "NH:")
				action, _ = strings.CutSuffix(action, ":0")
				rules[rule(to, from, action)]++
			}
		}
	}
}
