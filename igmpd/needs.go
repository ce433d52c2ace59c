package main

import (
	"github.com/manycast/manycast/igmpd/internal/config"
	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/internal/daemon"
)

func holderNeeds() []daemon.Need {
	return []daemon.Need{
		{Capability: daemon.NetAdmin, To: "make multicast routing tables"},
		{Capability: daemon.NetRaw, To: "open multicast routing sockets"},
	}
}

func routerNeeds(cfg config.Config) []daemon.Need {
	needs := []daemon.Need{
		{Capability: daemon.NetAdmin, To: "change routing rules, multicast tables and programs on interfaces"},
		{Capability: daemon.NetRaw, To: "hear and send IGMP"},
	}
	if cfg.Kernel().Mode == kernel.ModeOwner {
		needs = append(needs, daemon.Need{Capability: daemon.BPF, To: `load the classifier; forwarding.mode = "source" does without`})
	}
	return needs
}
