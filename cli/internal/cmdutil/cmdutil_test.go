package cmdutil

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestPrint(t *testing.T) {
	type row struct {
		Name   string `json:"name"`
		Weight int    `json:"weight"`
	}
	value := []row{{"s1", 1}, {"s2", 20}}
	table := Table{Header: []string{"NAME", "WEIGHT"}, Rows: [][]string{{"s1", "1"}, {"s2", "20"}}}
	for format, want := range map[string]string{
		"table": "NAME  WEIGHT\ns1    1\ns2    20\n",
		"json":  "[\n  {\n    \"name\": \"s1\",\n    \"weight\": 1\n  },\n  {\n    \"name\": \"s2\",\n    \"weight\": 20\n  }\n]\n",
		"yaml":  "- name: s1\n  weight: 1\n- name: s2\n  weight: 20\n",
	} {
		var out bytes.Buffer
		f := &Factory{Out: &out, Output: format}
		if err := f.Print(value, table); err != nil || out.String() != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", format, err, out.String(), want)
		}
	}
}

func TestBusErrorsNameTheWayOut(t *testing.T) {
	f := &Factory{URLs: []string{"nats://127.0.0.1:1"}, Credentials: "/nonexistent/admin.nk", Timeout: time.Second}
	if _, err := f.Bus(t.Context()); err == nil || !strings.Contains(err.Error(), "--credentials") {
		t.Fatalf("missing credentials: %v", err)
	}
	if err := (&Factory{Output: "xml"}).Check(); err == nil || !strings.Contains(err.Error(), "json") {
		t.Fatalf("bad format: %v", err)
	}
}
