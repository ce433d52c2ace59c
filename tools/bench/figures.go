package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A result is one figure beside what it is compared with.
type result struct {
	Name         string  `json:"name"`
	Value        float64 `json:"value"`
	Unit         string  `json:"unit"`
	Against      string  `json:"against"`
	AgainstValue float64 `json:"against_value"`
	Ratio        float64 `json:"ratio"` // value / against_value
}

// compare sets a value beside another of the same run. Beside nothing there is no ratio.
func compare(value float64, unit, against string, other float64) result {
	r := result{Value: value, Unit: unit, Against: against, AgainstValue: other}
	if other != 0 {
		r.Ratio = value / other
	}
	return r
}

func (r result) named(format string, args ...any) result {
	r.Name = fmt.Sprintf(format, args...)
	return r
}

// A figure names a metric of a benchmark and another one of the same benchmark that it is compared with. The benchmark measures
// both in turns, so that what else the machine does hits both alike.
type figure struct {
	name, unit      string
	metric          string
	against, versus string // words, and the metric
}

// A suite is one benchmark of a package.
type suite struct {
	pkg, bench, benchtime string
	vm                    bool // needs a kernel with MPLS
	figures               []figure
}

// run of a benchmark: its metrics.
type metrics map[string]float64

// parse reads the lines of `go test -bench`: name, count, then pairs of value and metric.
func parse(r io.Reader, bench string) (runs []metrics) {
	name := regexp.MustCompile(`^Benchmark` + regexp.QuoteMeta(bench) + `(-\d+)?$`)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 4 || !name.MatchString(words[0]) {
			continue
		}
		m := metrics{}
		for i := 2; i+1 < len(words); i += 2 {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				m[words[i+1]] = v
			}
		}
		runs = append(runs, m)
	}
	return runs
}

// results takes each figure from the run whose ratio is the median: value and comparison are of one run.
func (s suite) results(runs []metrics) ([]result, error) {
	var rows []result
	for _, f := range s.figures {
		var of []result
		for _, m := range runs {
			v, ok := m[f.metric]
			a, okA := m[f.versus]
			if !ok || !okA || a == 0 {
				return nil, fmt.Errorf("benchmark %s: no %s or %s", s.bench, f.metric, f.versus)
			}
			of = append(of, compare(v, f.unit, f.against, a).named("%s", f.name))
		}
		if len(of) == 0 {
			return nil, fmt.Errorf("benchmark %s did not run", s.bench)
		}
		slices.SortFunc(of, func(a, b result) int { return cmp.Compare(a.Ratio, b.Ratio) })
		rows = append(rows, of[len(of)/2])
	}
	return rows, nil
}
