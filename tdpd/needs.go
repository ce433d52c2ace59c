package main

import (
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/tdpd/internal/config"
)

// needs are the capabilities that tdpd cannot do without.
func needs(cfg config.Config) []daemon.Need {
	all := []daemon.Need{
		{Capability: daemon.NetAdmin, To: "change routes of labels and of IP, and settings of interfaces"},
		{Capability: daemon.NetBindService, To: "speak LDP at port 646"},
	}
	if cfg.Forwarding.Fast {
		all = append(all, daemon.Need{Capability: daemon.BPF, To: "load the fast path (forwarding.fast_path)"})
	}
	if cfg.Forwarding.Marks() {
		all = append(all, daemon.Need{Capability: daemon.BPF, To: "load the program that marks users (forwarding.edge)"})
	}
	return withControl(all, cfg.Control)
}

// withControl adds what a control channel needs.
func withControl(needs []daemon.Need, cfg config.Control) []daemon.Need {
	if !cfg.Enabled() {
		return needs
	}
	return append(needs, daemon.Need{Capability: daemon.NetRaw, To: "hear the control channel (control.group)"})
}
