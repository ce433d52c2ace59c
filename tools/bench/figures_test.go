package main

import (
	"strings"
	"testing"
)

const output = `goos: linux
BenchmarkCheck/join-2     	   10000	     90000 ns/op	     11000 joins/s
BenchmarkCheck/join-2     	   10000	     80000 ns/op	     12000 joins/s
BenchmarkCheck/raw-2      	   10000	     78000 ns/op	     12800 joins/s
PASS
`

func TestResultsTakeTheBestRun(t *testing.T) {
	s := suite{figures: []figure{
		{name: "signed joins checked", bench: "Check/join", against: "raw verify", versus: "Check/raw", metric: "joins/s"},
		{name: "cost of one", bench: "Check/join"},
	}}
	rows, err := s.results(parse(strings.NewReader(output)))
	if err != nil {
		t.Fatal(err)
	}
	if r := rows[0]; r.Value != 12000 || r.AgainstValue != 12800 || r.Ratio != 12000.0/12800 || r.Unit != "joins/s" {
		t.Errorf("rate: %+v", r)
	}
	if r := rows[1]; r.Value != 80000 || r.Against != "" {
		t.Errorf("time: %+v", r)
	}
}

func TestAMissingFigureIsAnError(t *testing.T) {
	s := suite{figures: []figure{{name: "x", bench: "Check/none"}}}
	if _, err := s.results(parse(strings.NewReader(output))); err == nil || !strings.Contains(err.Error(), "Check/none") {
		t.Fatalf("missing benchmark: %v", err)
	}
}
