package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// document is a Service in YAML and JSON.
type document struct {
	Name     string            `yaml:"name" json:"name"`
	VIP      string            `yaml:"vip" json:"vip"`
	VIP6     string            `yaml:"vip6,omitempty" json:"vip6,omitempty"`
	Group    string            `yaml:"group,omitempty" json:"group,omitempty"`
	Ports    []string          `yaml:"ports,flow" json:"ports"`
	Mode     string            `yaml:"mode" json:"mode"`
	Policy   string            `yaml:"policy" json:"policy"`
	Balance  *balanceDocument  `yaml:"balance,omitempty" json:"balance,omitempty"`
	Prefixes []prefixDocument  `yaml:"prefixes,omitempty" json:"prefixes,omitempty"`
	Slots    string            `yaml:"slots" json:"slots"`
	Handover *handoverDocument `yaml:"handover,omitempty" json:"handover,omitempty"`
	Dynamic  *dynamicDocument  `yaml:"dynamic,omitempty" json:"dynamic,omitempty"`
	Refuse   string            `yaml:"refuse,omitempty" json:"refuse,omitempty"`
	Steering string            `yaml:"steering,omitempty" json:"steering,omitempty"`
	Split    []string          `yaml:"split,omitempty,flow" json:"split,omitempty"`
	Servers  []serverDocument  `yaml:"servers,omitempty" json:"servers,omitempty"`
}

type serverDocument struct {
	Name     string   `yaml:"name" json:"name"`
	Address  string   `yaml:"address" json:"address"`
	Weight   *int     `yaml:"weight,omitempty" json:"weight,omitempty"`
	Portions []string `yaml:"portions,omitempty,flow" json:"portions,omitempty"`
	Deny     []string `yaml:"deny,omitempty,flow" json:"deny,omitempty"`
}

// MaxDocuments bounds how many services one file may hold.
const MaxDocuments = 4096

// Load reads the services of a YAML file and checks them, each by itself and all together.
func Load(path string) ([]Service, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	services, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("services %s: %w", path, err)
	}
	return services, nil
}

// Parse reads YAML documents, one service each. Keys that do not exist are refused. Defaults: mode multicast, policy equal,
// slots suffix/8, handover reset, with mode tags refuse reset and steering proactive, a server's weight 1, and policy.DefaultBalance.
func Parse(data []byte) ([]Service, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var services []Service
	for n := 1; ; n++ {
		var doc *document
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if doc == nil {
			continue // nothing between two "---"
		}
		if len(services) == MaxDocuments {
			return nil, fmt.Errorf("more than %d services", MaxDocuments)
		}
		s, err := doc.service()
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		services = append(services, s)
	}
	return services, ValidateAll(services)
}

// Marshal writes services as YAML documents that Parse reads.
func Marshal(services ...Service) ([]byte, error) {
	if len(services) == 0 {
		return nil, nil
	}
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	for _, s := range services {
		if err := enc.Encode(s); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), enc.Close()
}

// MarshalYAML writes the service under the keys that Parse reads.
func (s Service) MarshalYAML() (any, error) { return toDocument(s), nil }

// MarshalJSON writes the service under the same keys.
func (s Service) MarshalJSON() ([]byte, error) { return json.Marshal(toDocument(s)) }

func toDocument(s Service) document {
	d := document{
		Name: s.Name, VIP: s.VIP.String(), VIP6: text(s.VIP6), Group: text(s.Group), Mode: s.Mode,
		Policy: string(s.Policy), Slots: s.Slots.String(), Handover: handoverToDocument(s.Handover), Refuse: string(s.Refuse), Steering: string(s.Steering),
	}
	d.Dynamic = dynamicToDocument(s.Dynamic)
	d.Balance, d.Prefixes = balanceToDocument(s), prefixesToDocument(s.Prefixes)
	for _, p := range s.Split {
		d.Split = append(d.Split, p.String())
	}
	for _, p := range s.Ports {
		d.Ports = append(d.Ports, p.String())
	}
	for _, server := range s.Servers {
		d.Servers = append(d.Servers, serverDocument{
			Name: server.Name, Address: server.Address.String(), Weight: &server.Weight,
			Portions: portionTexts(server.Portions), Deny: portionTexts(server.Deny),
		})
	}
	return d
}

// service converts, fills in defaults and leaves what a value means to Validate.
func (d document) service() (Service, error) {
	s := Service{
		Name: d.Name, Mode: or(d.Mode, Multicast), Policy: alloc.Policy(or(d.Policy, string(alloc.Equal))),
		Refuse: Refusal(d.Refuse), Steering: Steering(d.Steering),
	}
	if s.Mode == Tags {
		s.Refuse, s.Steering = Refusal(or(d.Refuse, string(RefuseReset))), Steering(or(d.Steering, string(Proactive)))
	}
	fail := func(err error) (Service, error) { return Service{}, fmt.Errorf("service %q: %w", d.Name, err) }
	var err error
	if s.VIP, err = address("vip", d.VIP); err != nil {
		return fail(err)
	}
	if s.VIP6, err = maybe("vip6", d.VIP6); err != nil {
		return fail(err)
	}
	group := address
	if s.Mode == Tags {
		group = maybe
	}
	if s.Group, err = group("group", d.Group); err != nil {
		return fail(err)
	}
	if s.Slots, err = alloc.ParseSlots(or(d.Slots, string(alloc.Suffix))); err != nil {
		return fail(err)
	}
	if s.Balance, err = d.Balance.balance(); err != nil {
		return fail(fmt.Errorf("balance: %w", err))
	}
	if s.Handover, err = d.Handover.handover(); err != nil {
		return fail(err)
	}
	if s.Dynamic, err = d.Dynamic.dynamic(); err != nil {
		return fail(err)
	}
	for _, pd := range d.Prefixes {
		p, err := parsePrefix(pd.Prefix, pd.Servers)
		if err != nil {
			return fail(err)
		}
		s.Prefixes = append(s.Prefixes, p)
	}
	if s.Split, err = parseSplit(d.Split); err != nil {
		return fail(err)
	}
	for _, text := range d.Ports {
		p, err := ParsePort(text)
		if err != nil {
			return fail(err)
		}
		s.Ports = append(s.Ports, p)
	}
	for _, sd := range d.Servers {
		server, err := sd.server()
		if err != nil {
			return fail(err)
		}
		s.Servers = append(s.Servers, server)
	}
	return s, nil
}

func (d serverDocument) server() (Server, error) {
	s := Server{Name: d.Name, Weight: 1}
	if d.Weight != nil {
		s.Weight = *d.Weight
	}
	var err error
	if s.Address, err = address("address", d.Address); err != nil {
		return Server{}, fmt.Errorf("server %q: %w", d.Name, err)
	}
	if s.Portions, err = parsePortions(d.Portions); err != nil {
		return Server{}, fmt.Errorf("server %q: %w", d.Name, err)
	}
	if s.Deny, err = parsePortions(d.Deny); err != nil {
		return Server{}, fmt.Errorf("server %q: deny: %w", d.Name, err)
	}
	return s, nil
}

func portionTexts(portions []portion.Portion) []string {
	var texts []string
	for _, p := range portions {
		texts = append(texts, p.String())
	}
	return texts
}

func parsePortions(texts []string) ([]portion.Portion, error) {
	var portions []portion.Portion
	for _, text := range texts {
		p, err := portion.Parse(text)
		if err != nil {
			return nil, err
		}
		portions = append(portions, p)
	}
	return portions, nil
}

// parseSplit sorts prefixes; an address is one of itself.
func parseSplit(texts []string) (steer.Split, error) {
	var split steer.Split
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if a, e := netip.ParseAddr(text); e == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("split: %q is not a prefix: want one such as 203.0.113.7/32", text)
		}
		split = append(split, p)
	}
	slices.SortFunc(split, netip.Prefix.Compare)
	return split, nil
}

func address(key, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, fmt.Errorf("%s is missing", key)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s %q is not an address", key, text)
	}
	return a, nil
}

// maybe is an address, or the zero one where there is no text.
func maybe(key, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return address(key, text)
}

// text is what maybe reads.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
