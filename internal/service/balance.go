package service

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/portion"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// balanceDocument is a policy.Balance in YAML and JSON. What is not there is the default.
type balanceDocument struct {
	Interval   string   `yaml:"interval,omitempty" json:"interval,omitempty"`
	Hysteresis string   `yaml:"hysteresis,omitempty" json:"hysteresis,omitempty"`
	Step       string   `yaml:"step,omitempty" json:"step,omitempty"`
	Range      *float64 `yaml:"range,omitempty" json:"range,omitempty"`
	Split      string   `yaml:"split,omitempty" json:"split,omitempty"`
	Shed       string   `yaml:"shed,omitempty" json:"shed,omitempty"`
}

type prefixDocument struct {
	Prefix  string   `yaml:"prefix" json:"prefix"`
	Servers []string `yaml:"servers,flow" json:"servers"`
}

// balanceToDocument leaves out what says nothing: the default where no policy asks for it.
func balanceToDocument(s Service) *balanceDocument {
	b := s.Balance.OrDefault()
	if b == policy.DefaultBalance() && !s.Rules().FollowsReports() {
		return nil
	}
	return &balanceDocument{
		Interval: b.Interval.String(), Hysteresis: percent(b.Hysteresis), Step: percent(b.Step), Range: &b.Range,
		Split: percent(b.Split), Shed: percent(b.Shed),
	}
}

func (d *balanceDocument) balance() (policy.Balance, error) {
	b := policy.DefaultBalance()
	if d == nil {
		return b, nil
	}
	if d.Interval != "" {
		interval, err := time.ParseDuration(d.Interval)
		if err != nil {
			return b, fmt.Errorf("interval %q: want a time such as 10s", d.Interval)
		}
		b.Interval = interval.Truncate(time.Millisecond)
	}
	if d.Range != nil {
		b.Range = *d.Range
	}
	for _, f := range []struct {
		name, text string
		to         *float64
	}{{"hysteresis", d.Hysteresis, &b.Hysteresis}, {"step", d.Step, &b.Step}, {"split", d.Split, &b.Split}, {"shed", d.Shed, &b.Shed}} {
		if f.text == "" {
			continue
		}
		part, err := parsePart(f.text)
		if err != nil {
			return b, fmt.Errorf("%s %q: want a part such as 10%% or 0.1", f.name, f.text)
		}
		*f.to = part
	}
	return b, nil
}

// parts has parts rounded, so that what percent writes is what was read.
const parts = 1e8

func parsePart(text string) (float64, error) {
	number, isPercent := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(number, 64)
	if isPercent {
		f /= 100
	}
	return math.Round(f*parts) / parts, err
}

func percent(part float64) string {
	return strconv.FormatFloat(math.Round(part*parts)/(parts/100), 'f', -1, 64) + "%"
}

func balanceToProto(b policy.Balance) *servicev1.Balance {
	return &servicev1.Balance{
		IntervalMs: uint64(b.Interval.Milliseconds()), Hysteresis: b.Hysteresis, Step: b.Step, Range: b.Range, Split: b.Split, Shed: b.Shed,
	}
}

func balanceFromProto(p *servicev1.Balance) (policy.Balance, error) {
	if p == nil {
		return policy.DefaultBalance(), nil
	}
	const most = uint64(time.Hour / time.Millisecond)
	if p.GetIntervalMs() == 0 || p.GetIntervalMs() > most {
		return policy.Balance{}, fmt.Errorf("balance: interval of %d ms: want 1s to 1h", p.GetIntervalMs())
	}
	return policy.Balance{
		Interval: time.Duration(p.GetIntervalMs()) * time.Millisecond, Hysteresis: p.GetHysteresis(), Step: p.GetStep(),
		Range: p.GetRange(), Split: p.GetSplit(), Shed: p.GetShed(),
	}, nil
}

func prefixesToDocument(prefixes []policy.Prefix) []prefixDocument {
	var out []prefixDocument
	for _, p := range prefixes {
		out = append(out, prefixDocument{p.Portion.String(), p.Servers})
	}
	return out
}

func parsePrefix(text string, servers []string) (policy.Prefix, error) {
	p, err := portion.Parse(text)
	if err != nil {
		return policy.Prefix{}, fmt.Errorf("prefixes: %w", err)
	}
	return policy.Prefix{Portion: p, Servers: servers}, nil
}
