// Package lab runs whole networks of the suite's real daemons in network namespaces of one machine: a topology file says what
// there is, Up makes it, Down removes it without a trace.
package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Topology is a network as its file says it. Nodes are namespaces; a switch is a bridge in a namespace of its own.
type Topology struct {
	Name       string            `yaml:"name"`
	About      string            `yaml:"about"`
	Vars       map[string]string `yaml:"vars"`    // for the templates
	Sysctls    map[string]string `yaml:"sysctls"` // of every node, set before its interfaces are made
	Env        map[string]string `yaml:"env"`     // of every command, templates
	XDP        bool              `yaml:"xdp"`     // links carry what XDP programs send: each end takes it, checksums are whole
	User       int               `yaml:"user"`    // user and group id of processes and of what steps run; 0: all is root's
	Management Management        `yaml:"management"`
	Nodes      []Node            `yaml:"nodes"`
	Links      []Link            `yaml:"links"`
	Switches   []Switch          `yaml:"switches"`
	Steps      []Step            `yaml:"steps"` // in this order, when the network is there
}

// Management is a network apart that joins all nodes: a bridge in one of them, interface "mgmt" in the others.
type Management struct {
	Node   string       `yaml:"node"` // empty: no management network
	Prefix netip.Prefix `yaml:"prefix"`
}

// MgmtInterface is the management interface of every node; in the management node it is the bridge.
const MgmtInterface = "mgmt"

// Node is a host or a router.
type Node struct {
	Name      string               `yaml:"name"`
	Forward   bool                 `yaml:"forward"`
	Addresses map[string]Addresses `yaml:"addresses"` // by interface
	Routes    []Route              `yaml:"routes"`
	Sysctls   map[string]string    `yaml:"sysctls"` // set when the interfaces are there
	Nft       string               `yaml:"nft"`     // rule set
	Vars      map[string]string    `yaml:"vars"`    // over the topology's
	Processes []Process            `yaml:"processes"`
}

// Process is a program of a node. Command and files are templates over TemplateData; a command without a slash is looked for
// beside the manycast binary, then in PATH.
type Process struct {
	Name    string            `yaml:"name"`
	Command []string          `yaml:"command"`
	Files   map[string]string `yaml:"files"` // name in the node's directory -> template's name
	Vars    map[string]string `yaml:"vars"`  // over the node's, in files
	Ready   string            `yaml:"ready"` // notify (default): READY=1 as services tell systemd | none

	Nice         int      `yaml:"nice"`         // -20 to 19: below 0 it goes before others
	Capabilities []string `yaml:"capabilities"` // all that it has, "net_admin"; root's processes have all and name none
	Groups       []string `yaml:"groups"`       // more groups of the topology's user in it, as SupplementaryGroups= of units
	Root         bool     `yaml:"root"`         // it is root's though the topology has a user: a program of others that begins as root
}

// Step starts processes ("node/process", side by side) or runs a command to its end; a command that fails ends Up.
type Step struct {
	When  map[string]string `yaml:"when"` // values of vars with which the step is taken; empty: always
	Start []string          `yaml:"start"`
	On    string            `yaml:"on"` // node of Run
	Run   []string          `yaml:"run"`
}

// Endpoint is an interface of a node, "r1:up".
type Endpoint struct{ Node, Interface string }

// Link is a pair of interfaces.
type Link struct{ A, B Endpoint }

// Switch is a bridge in a namespace of its own.
type Switch struct {
	Name     string     `yaml:"name"`
	Snooping bool       `yaml:"snooping"`
	Ports    []Endpoint `yaml:"ports"`
}

// Addresses is a list of addresses with prefix length; "10.1.0.11-70/16" is a range over the last byte.
type Addresses []netip.Prefix

// Route is "10.0.0.0/8 via 10.2.0.1", "10.0.0.0/8 dev lan" or with "default" as its destination.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
	Dev string
}

// ParseTopology parses and checks a topology file. Unknown keys are refused.
func ParseTopology(data []byte) (*Topology, error) {
	var t Topology
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&t); err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("topology %s: %w", t.Name, err)
	}
	return &t, nil
}

// Node returns the node of that name, or nil.
func (t *Topology) Node(name string) *Node {
	for i := range t.Nodes {
		if t.Nodes[i].Name == name {
			return &t.Nodes[i]
		}
	}
	return nil
}

// process returns the process that "node/process" names.
func (t *Topology) process(ref string) (*Node, *Process, error) {
	nodeName, name, _ := strings.Cut(ref, "/")
	if node := t.Node(nodeName); node != nil {
		for i := range node.Processes {
			if node.Processes[i].Name == name {
				return node, &node.Processes[i], nil
			}
		}
	}
	return nil, nil, fmt.Errorf("no process %q: want NODE/PROCESS", ref)
}

// MgmtAddress is a node's address on the management network: 1 for the management node, from 11 on for the others in order.
func (t *Topology) MgmtAddress(node string) netip.Prefix {
	if t.Management.Node == "" {
		return netip.Prefix{}
	}
	host := 11
	for _, n := range t.Nodes {
		switch {
		case n.Name == node && node == t.Management.Node:
			return addressIn(t.Management.Prefix, 1)
		case n.Name == node:
			return addressIn(t.Management.Prefix, host)
		case n.Name != t.Management.Node:
			host++
		}
	}
	return netip.Prefix{}
}

func addressIn(p netip.Prefix, host int) netip.Prefix {
	b := p.Addr().As4()
	b[3] |= byte(host)
	return netip.PrefixFrom(netip.AddrFrom4(b), p.Bits())
}

// interfaces are the node's ends of links, of switches and of the management network, sorted.
func (t *Topology) interfaces(node string) []string {
	var out []string
	add := func(e Endpoint) {
		if e.Node == node {
			out = append(out, e.Interface)
		}
	}
	for _, l := range t.Links {
		add(l.A)
		add(l.B)
	}
	for _, s := range t.Switches {
		for _, p := range s.Ports {
			add(p)
		}
	}
	if t.Management.Node != "" {
		out = append(out, MgmtInterface)
	}
	slices.Sort(out)
	return out
}

// Address is the first address of a node's interface.
func (t *Topology) Address(node, ifname string) (netip.Prefix, error) {
	if n := t.Node(node); n != nil && len(n.Addresses[ifname]) > 0 {
		return n.Addresses[ifname][0], nil
	}
	return netip.Prefix{}, fmt.Errorf("no address on %s:%s", node, ifname)
}

// ownDirs are beside the nodes' directories.
var ownDirs = []string{"bin", "bpf", "logs", "notify"}

var nameRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

func checkName(lab string) error {
	if !nameRE.MatchString(lab) {
		return fmt.Errorf("lab name %q: want up to 15 of a-z, 0-9, -, a letter first", lab)
	}
	return nil
}

func (t *Topology) validate() error {
	if err := checkName(t.Name); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, name := range t.namespaces() {
		if !nameRE.MatchString(name) {
			return fmt.Errorf("node %q: want up to 15 of a-z, 0-9, -", name)
		}
		if slices.Contains(ownDirs, name) {
			return fmt.Errorf("node %s: the lab's own directory has that name", name)
		}
		if seen[name] {
			return fmt.Errorf("node or switch %s is there twice", name)
		}
		seen[name] = true
	}
	if m := t.Management; m.Node != "" {
		if t.Node(m.Node) == nil {
			return fmt.Errorf("management: no node %q", m.Node)
		}
		if !m.Prefix.Addr().Is4() || m.Prefix.Bits() != 24 || m.Prefix != m.Prefix.Masked() || len(t.Nodes) > 200 {
			return fmt.Errorf("management prefix %s: want an IPv4 /24 and at most 200 nodes", m.Prefix)
		}
	}
	return errors.Join(t.validateInterfaces(), t.validateSteps(), t.validatePrivileges())
}

// namespaces are the names of all nodes and switches.
func (t *Topology) namespaces() []string {
	var names []string
	for _, n := range t.Nodes {
		names = append(names, n.Name)
	}
	for _, s := range t.Switches {
		names = append(names, s.Name)
	}
	return names
}

func (t *Topology) validateInterfaces() error {
	have := map[Endpoint]bool{}
	for _, n := range t.Nodes {
		have[Endpoint{n.Name, "lo"}] = true
		if t.Management.Node != "" {
			have[Endpoint{n.Name, MgmtInterface}] = true
		}
	}
	var ends []Endpoint
	for _, l := range t.Links {
		ends = append(ends, l.A, l.B)
	}
	for _, s := range t.Switches {
		ends = append(ends, s.Ports...)
	}
	for _, e := range ends {
		if t.Node(e.Node) == nil {
			return fmt.Errorf("link of %s:%s: no such node", e.Node, e.Interface)
		}
		if have[e] {
			return fmt.Errorf("interface %s:%s is there twice", e.Node, e.Interface)
		}
		have[e] = true
	}
	for _, n := range t.Nodes {
		for ifname := range n.Addresses {
			if !have[Endpoint{n.Name, ifname}] {
				return fmt.Errorf("addresses of %s:%s: no such interface", n.Name, ifname)
			}
		}
	}
	return nil
}

func (t *Topology) validateSteps() error {
	for _, n := range t.Nodes {
		for _, p := range n.Processes {
			if len(p.Command) == 0 || !nameRE.MatchString(p.Name) {
				return fmt.Errorf("process %s/%s: wants a name and a command", n.Name, p.Name)
			}
			if p.Nice < -20 || p.Nice > 19 {
				return fmt.Errorf("process %s/%s: nice %d: want -20 to 19", n.Name, p.Name, p.Nice)
			}
			if p.Ready != "" && p.Ready != "notify" && p.Ready != "none" {
				return fmt.Errorf("process %s/%s: ready %q: want notify or none", n.Name, p.Name, p.Ready)
			}
		}
	}
	for i, s := range t.Steps {
		for name := range s.When {
			if _, ok := t.Vars[name]; !ok {
				return fmt.Errorf("step %d: when %q: the topology has no such var", i+1, name)
			}
		}
		if (len(s.Start) == 0) == (len(s.Run) == 0) {
			return fmt.Errorf("step %d: want either start or run", i+1)
		}
		if len(s.Run) > 0 && t.Node(s.On) == nil {
			return fmt.Errorf("step %d: on %q: no such node", i+1, s.On)
		}
		for _, ref := range s.Start {
			if _, _, err := t.process(ref); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
		}
	}
	return nil
}
