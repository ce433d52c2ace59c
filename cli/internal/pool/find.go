package pool

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNoSuch is wrapped by errors for services and servers that are not there.
var ErrNoSuch = errors.New("not there")

// Service finds a service by its name.
func (s *Snapshot) Service(name string) (*Service, error) {
	for _, svc := range s.Services {
		if svc.Spec.Name == name {
			return svc, nil
		}
	}
	return nil, noSuch("service", name, s.names(), "make one with `manycast service create`")
}

// Select returns the services of the names given, all services if there are none.
func (s *Snapshot) Select(names ...string) ([]*Service, error) {
	if len(names) == 0 {
		return s.Services, nil
	}
	var out []*Service
	for _, name := range names {
		svc, err := s.Service(name)
		if err != nil {
			return nil, err
		}
		out = append(out, svc)
	}
	return out, nil
}

// Only returns the one service that there is, for commands that need no name then.
func (s *Snapshot) Only() (*Service, error) {
	switch len(s.Services) {
	case 0:
		return nil, errors.New("there is no service: make one with `manycast service create`")
	case 1:
		return s.Services[0], nil
	}
	return nil, fmt.Errorf("there are several services, name one of them: %s", strings.Join(s.names(), ", "))
}

// Find returns the servers that target names: SERVICE/NAME is one, NAME alone is that server in all its services.
func (s *Snapshot) Find(target string) ([]Server, error) {
	svcName, name, both := strings.Cut(target, "/")
	if !both {
		name = target
	}
	var found []Server
	var all []string
	services := s.Services
	if both {
		svc, err := s.Service(svcName)
		if err != nil {
			return nil, err
		}
		services = []*Service{svc}
	}
	for _, svc := range services {
		for _, m := range svc.Servers {
			all = append(all, m.Service+"/"+m.Name)
			if m.Name == name {
				found = append(found, m)
			}
		}
	}
	if len(found) == 0 {
		return nil, noSuch("server", target, all, "a server appears when its lbd agent runs and serves a service")
	}
	return found, nil
}

func (s *Snapshot) names() []string {
	names := make([]string, 0, len(s.Services))
	for _, svc := range s.Services {
		names = append(names, svc.Spec.Name)
	}
	return names
}

// maxListed bounds how many names an error lists.
const maxListed = 20

func noSuch(what, name string, have []string, none string) error {
	if len(have) == 0 {
		return fmt.Errorf("%s %q is %w, nor is any other: %s", what, name, ErrNoSuch, none)
	}
	more := ""
	if n := len(have) - maxListed; n > 0 {
		have, more = have[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("%s %q is %w; there are: %s%s", what, name, ErrNoSuch, strings.Join(have, ", "), more)
}
