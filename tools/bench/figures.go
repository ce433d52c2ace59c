package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
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

// A figure names a metric of a benchmark and the benchmark of the same suite that it is compared with.
type figure struct {
	name, bench     string
	against, versus string // words, and the benchmark
	metric          string // "ns/op" unless said; all others are rates, where more is better
}

// A suite is one package's benchmarks, run together so that ratios hold on a noisy machine.
type suite struct {
	pkg, run, benchtime string
	figures             []figure
}

// figures of one run: benchmark -> metric -> best value.
type measured map[string]map[string]float64

// parse reads the lines of `go test -bench`: name, count, then pairs of value and metric.
func parse(r io.Reader) measured {
	all, procs := measured{}, regexp.MustCompile(`-\d+$`)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		name := procs.ReplaceAllString(strings.TrimPrefix(words[0], "Benchmark"), "")
		if all[name] == nil {
			all[name] = map[string]float64{}
		}
		for i := 2; i+1 < len(words); i += 2 {
			v, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				break
			}
			best(all[name], words[i+1], v)
		}
	}
	return all
}

// best keeps the least time or the highest rate of several runs.
func best(metrics map[string]float64, metric string, v float64) {
	old, ok := metrics[metric]
	lessIsBetter := strings.HasSuffix(metric, "/op") || metric == "ms" || metric == "ns"
	if !ok || lessIsBetter && v < old || !lessIsBetter && v > old {
		metrics[metric] = v
	}
}

// results looks the suite's figures up.
func (s suite) results(m measured) ([]result, error) {
	var rows []result
	for _, f := range s.figures {
		metric := f.metric
		if metric == "" {
			metric = "ns/op"
		}
		v, ok := m[f.bench][metric]
		if !ok {
			return nil, fmt.Errorf("no %s of benchmark %s", metric, f.bench)
		}
		r := result{Name: f.name, Value: v, Unit: metric}
		if f.versus != "" {
			a, ok := m[f.versus][metric]
			if !ok || a == 0 {
				return nil, fmt.Errorf("no %s of benchmark %s", metric, f.versus)
			}
			r.Against, r.AgainstValue, r.Ratio = f.against, a, v/a
		}
		rows = append(rows, r)
	}
	return rows, nil
}
