package lab

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const small = `
name: small
vars: {mode: full, colour: red}
env: {COLOUR: "{{.Vars.colour}}"}
management: {node: a, prefix: 172.31.81.0/24}
nodes:
  - name: a
    addresses: {eth0: "10.9.0.1/24, 10.9.0.11-13/24"}
    routes: [10.8.0.0/16 via 10.9.0.2, 10.7.0.0/16 dev eth0]
    processes:
      - {name: sleeper, command: [sleep, "3600"], ready: none}
  - name: b
    forward: true
    vars: {colour: blue}
    addresses: {eth0: 10.9.0.2/24, lan: 10.8.0.1/24}
    processes:
      - name: teller
        command: [sh, -c, 'echo "$COLOUR" >colour && cat note >>colour; exec sleep 3600']
        files: {note: note}
        ready: none
  - {name: c, addresses: {eth0: 10.8.0.2/24}, routes: [default via 10.8.0.1]}
links: [a:eth0 b:eth0]
switches: [{name: sw, snooping: true, ports: ["b:lan", "c:eth0"]}]
steps:
  - {start: [a/sleeper, b/teller]}
  - {when: {mode: other}, on: a, run: ["false"]}
  - {on: a, run: [ping, -c1, -W5, 10.8.0.1]}
`

func TestParseTopology(t *testing.T) {
	got, err := ParseTopology([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, p := range got.Node("a").Addresses["eth0"] {
		addresses = append(addresses, p.String())
	}
	want := []string{"10.9.0.1/24", "10.9.0.11/24", "10.9.0.12/24", "10.9.0.13/24"}
	if diff := cmp.Diff(want, addresses); diff != "" {
		t.Error(diff)
	}
	routes := []Route{
		{To: netip.MustParsePrefix("10.8.0.0/16"), Via: netip.MustParseAddr("10.9.0.2")}, {To: netip.MustParsePrefix("10.7.0.0/16"), Dev: "eth0"},
	}
	if r := got.Node("a").Routes; len(r) != 2 || r[0] != routes[0] || r[1] != routes[1] {
		t.Errorf("routes %v", r)
	}
	for node, want := range map[string]string{"a": "172.31.81.1/24", "b": "172.31.81.11/24", "c": "172.31.81.12/24", "sw": "invalid Prefix"} {
		if got := got.MgmtAddress(node).String(); got != want {
			t.Errorf("management address of %s: %s, want %s", node, got, want)
		}
	}
	if diff := cmp.Diff([]string{"eth0", "lan", "mgmt"}, got.interfaces("b")); diff != "" {
		t.Error(diff)
	}
}

func TestParseTopologyRefuses(t *testing.T) {
	change := func(old, new string) string { return strings.Replace(small, old, new, 1) }
	for name, tt := range map[string]struct{ text, want string }{
		"unknown key":             {change("forward: true", "forwards: true"), "forwards"},
		"bad name":                {change("name: small", "name: Small"), "Small"},
		"node twice":              {change("name: c,", "name: b,"), "twice"},
		"switch named as a node":  {change("name: sw", "name: b"), "twice"},
		"capability of root":      {change("[sleep, \"3600\"], ready", "[sleep, \"3600\"], capabilities: [bpf], ready"), "wants a user"},
		"group of root":           {change("[sleep, \"3600\"], ready", "[sleep, \"3600\"], groups: [daemon], ready"), "wants a user"},
		"step by no var":          {change("{mode: other}", "{mood: other}"), "mood"},
		"user that is none":       {change("name: small\n", "name: small\nuser: -1\n"), "user -1"},
		"the lab's own directory": {change("name: sw", "name: bin"), "own directory"},
		"interface twice":         {change("c:eth0", "b:eth0"), "b:eth0 is there twice"},
		"link to nobody":          {change("c:eth0", "d:eth0"), "no such node"},
		"address on no interface": {change("lan: 10.8", "lon: 10.8"), "b:lon"},
		"address without length":  {change("10.8.0.2/24}", "10.8.0.2}"), "10.8.0.2"},
		"range backwards":         {change("11-13", "11-3"), "range"},
		"IPv6 address":            {change("10.8.0.2/24}", "'2001:db8::1/64'}"), "2001:db8::1"},
		"route by nothing":        {change("10.7.0.0/16 dev eth0", "10.7.0.0/16 eth0"), "10.7.0.0/16"},
		"process of nobody":       {change("a/sleeper", "a/sleepy"), "a/sleepy"},
		"step without an action":  {change("on: a, run: [ping, -c1, -W5, 10.8.0.1]", "on: a"), "start or run"},
		"step on no node":         {change("on: a, run: [ping", "on: z, run: [ping"), "no such node"},
		"bad readiness":           {change("ready: none", "ready: perhaps"), "perhaps"},
		"management of nobody":    {change("node: a, prefix", "node: z, prefix"), "management"},
		"management too small":    {change("172.31.81.0/24", "172.31.81.0/28"), "/24"},
		"interface name too long": {change("b:lan", "b:averylonginterface"), "15"},
		"not YAML":                {"name: [", "topology"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseTopology([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// The topologies that are built in parse, and all their templates can be rendered.
func TestBuiltInTopologies(t *testing.T) {
	for _, name := range Topologies() {
		source, err := BuiltIn(name)
		if err != nil {
			t.Fatal(err)
		}
		topology, err := ParseTopology(source.Text)
		if err != nil {
			t.Fatal(err)
		}
		if topology.Name != name {
			t.Errorf("file %s has topology %s", name, topology.Name)
		}
		for _, mode := range []string{"bus", "static", "multicast", "tags"} {
			for name, value := range map[string]string{"mode": mode, "bfd": strconv.FormatBool(mode == "bus")} {
				if _, ok := topology.Vars[name]; ok {
					topology.Vars[name] = value
				}
			}
			l := &Lab{store: &Store{Root: t.TempDir(), Bin: "/bin"}, name: "t", topology: topology}
			if err := l.writeFiles(source.Templates); err != nil {
				t.Errorf("%s, mode %s: %v", name, mode, err)
			}
			for _, n := range topology.Nodes {
				if _, err := l.environment(n.Name); err != nil {
					t.Error(err)
				}
				for _, p := range n.Processes {
					if _, err := l.expand(n.Name, p.Command); err != nil {
						t.Error(err)
					}
				}
			}
			for _, s := range topology.Steps {
				if _, err := l.expand(s.On, s.Run); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if _, err := BuiltIn("none"); err == nil || !strings.Contains(err.Error(), "multicast") {
		t.Errorf("unknown topology: %v", err)
	}
}

func TestOverrideRefusesUnknownVars(t *testing.T) {
	topology, err := ParseTopology([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if err := topology.override(map[string]string{"color": "red"}); err == nil || !strings.Contains(err.Error(), "colour") {
		t.Errorf("error %v, want one that names the vars", err)
	}
}

func FuzzParseTopology(f *testing.F) {
	f.Add([]byte(small))
	f.Fuzz(func(t *testing.T, data []byte) {
		if topology, err := ParseTopology(data); err == nil {
			for _, n := range topology.Nodes {
				topology.interfaces(n.Name)
				topology.MgmtAddress(n.Name)
			}
		}
	})
}
