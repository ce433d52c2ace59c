package dataplane

import (
	"errors"
	"net/netip"
)

func (a *agent) SetPeers([]netip.Addr) error        { return errors.ErrUnsupported }
func (a *agent) Hold([]Flow) error                  { return errors.ErrUnsupported }
func (a *agent) Pass([]Flow, netip.Addr) error      { return errors.ErrUnsupported }
func (a *agent) Release([]Flow) error               { return errors.ErrUnsupported }
func (a *agent) SetFlows(map[Flow]netip.Addr) error { return errors.ErrUnsupported }
func (a *agent) DropFlows([]Flow) error             { return errors.ErrUnsupported }
func (a *agent) Strays() <-chan Stray               { return nil }
func (a *agent) Inject([]byte) error                { return errors.ErrUnsupported }
func (a *agent) Knows(Flow) (bool, error)           { return false, errors.ErrUnsupported }
