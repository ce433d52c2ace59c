package config

import (
	"strings"
	"testing"
)

func TestWhatCannotForward(t *testing.T) {
	const head = "router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\n"
	for text, want := range map[string]string{
		`users = "xdp"`:  `want "auto"`,
		`users = "fast"`: "set fast_path",
		"users = \"kernel\"\ntables = \"none\"\nfast_path = true": `set tables = "kernel"`,
		"edge = [\"b\"]\nusers_mark = 1":                          "users_mark 0x1",
		"edge = [\"b\"]\nusers_mark_mask = 0xff000000":            "no low bits",
		"edge = [\"b\"]\nusers_table = 254":                       "users_table 254",
		"edge = [\"b\"]\nusers_priority = 32764":                  "users_priority 32764",
	} {
		if _, err := load(t, head+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestWhatSteersUsers(t *testing.T) {
	const head = "router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\n"
	for text, want := range map[string][2]bool{ // marks, the fast path
		"":                                 {false, false},
		"edge = [\"b\"]":                   {true, false},
		"edge = [\"b\"]\nfast_path = true": {true, true},
		"edge = [\"b\"]\nfast_path = true\nusers = \"fast\"":   {false, true},
		"edge = [\"b\"]\nfast_path = true\nusers = \"kernel\"": {true, false},
		"edge = [\"b\"]\nfast_path = true\ntables = \"none\"":  {false, true},
	} {
		c, err := load(t, head+text)
		if got := [2]bool{c.Forwarding.Marks(), c.Forwarding.FastUsers()}; err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestTablesThatAreThere(t *testing.T) {
	const head = "router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\n"
	for text, want := range map[string][2]string{ // on a kernel with MPLS, and without
		"":                                      {TablesKernel, TablesKernel}, // which says what is missing
		"fast_path = true":                      {TablesKernel, TablesNone},
		"tables = \"kernel\"\nfast_path = true": {TablesKernel, TablesKernel},
		"tables = \"none\"\nfast_path = true":   {TablesNone, TablesNone},
		"fast_path = true\nusers = \"kernel\"\nedge = [\"b\"]\n": {TablesKernel, TablesKernel},
	} {
		c, err := load(t, head+text)
		if got := [2]string{c.Forwarding.On(true).Tables, c.Forwarding.On(false).Tables}; err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}
