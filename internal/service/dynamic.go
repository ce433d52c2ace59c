package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"

	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// MaxDestinations bounds the prefixes of a Dynamic.
const MaxDestinations = 64

// Dynamic says whether the service's TCP connections say where they live, to users' hosts that ask (Fig 20, 21).
type Dynamic struct {
	On bool
	// Destinations are where servers may be whose connections say so; none: anywhere. What users' hosts believe is published with the service's
	// key (manycast key service publish).
	Destinations []netip.Prefix
}

// At reports whether connections say that they live at a server's address.
func (d Dynamic) At(server netip.Addr) bool {
	if !d.On || len(d.Destinations) == 0 {
		return d.On
	}
	for _, p := range d.Destinations {
		if p.Contains(server) {
			return true
		}
	}
	return false
}

// WholeVIP reports whether all ports of the service's VIPs have to be its own: packets come to the VIP itself.
func (s Service) WholeVIP() bool { return s.Mode == Tags || s.Handover.Has(Pin) || s.Dynamic.On }

func (s Service) checkDynamic() error {
	d := s.Dynamic
	switch {
	case !d.On && len(d.Destinations) > 0:
		return errors.New("dynamic: destinations of connections that do not say where they live")
	case !d.On:
		return nil
	case s.Static():
		return errors.New("dynamic with portions of servers: it takes a leader, by which users move")
	case len(d.Destinations) > MaxDestinations:
		return fmt.Errorf("dynamic: %d destinations: at most %d", len(d.Destinations), MaxDestinations)
	}
	for _, p := range d.Destinations {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("dynamic: destination %v: want a prefix such as 10.0.0.0/16, without bits behind its length", p)
		}
	}
	for _, p := range s.Ports {
		if p.Proto == "tcp" {
			return nil
		}
	}
	return errors.New("dynamic: the service has no port of TCP")
}

// dynamicDocument is a Dynamic in YAML and JSON: true, or a mapping with more.
type dynamicDocument struct {
	On           bool     `yaml:"-" json:"-"`
	Destinations []string `yaml:"destinations,flow" json:"destinations"`
}

// UnmarshalYAML reads either. Keys that do not exist are refused here, for a node knows nothing of its decoder.
func (d *dynamicDocument) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return node.Decode(&d.On)
	}
	for i := 0; i < len(node.Content); i += 2 {
		if key := node.Content[i]; key.Value != "destinations" {
			return fmt.Errorf("line %d: dynamic has no key %s: want destinations", key.Line, key.Value)
		}
	}
	type plain dynamicDocument
	err := node.Decode((*plain)(d))
	d.On = true
	return err
}

func (d *dynamicDocument) dynamic() (Dynamic, error) {
	if d == nil {
		return Dynamic{}, nil
	}
	destinations, err := parseDestinations(d.Destinations)
	return Dynamic{On: d.On, Destinations: destinations}, err
}

func parseDestinations(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("dynamic: destination %q: want a prefix such as 10.0.0.0/16", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// dynamicToDocument leaves out what says nothing.
func dynamicToDocument(d Dynamic) *dynamicDocument {
	if !d.On {
		return nil
	}
	return &dynamicDocument{On: true, Destinations: destinationTexts(d)}
}

func destinationTexts(d Dynamic) (out []string) {
	for _, p := range d.Destinations {
		out = append(out, p.String())
	}
	return out
}

func (d dynamicDocument) brief() any {
	type plain dynamicDocument
	if len(d.Destinations) > 0 {
		return plain(d)
	}
	return d.On
}

// MarshalYAML writes what UnmarshalYAML reads.
func (d dynamicDocument) MarshalYAML() (any, error) { return d.brief(), nil }

// MarshalJSON writes the same.
func (d dynamicDocument) MarshalJSON() ([]byte, error) { return json.Marshal(d.brief()) }

func dynamicToProto(d Dynamic) *servicev1.Dynamic {
	if !d.On {
		return nil
	}
	return &servicev1.Dynamic{Destinations: destinationTexts(d)}
}

func dynamicFromProto(p *servicev1.Dynamic) (Dynamic, error) {
	if p == nil {
		return Dynamic{}, nil
	}
	destinations, err := parseDestinations(p.GetDestinations())
	return Dynamic{On: true, Destinations: destinations}, err
}
