package main

// suites are the figures that are benchmarks of packages.
func suites() []suite {
	return []suite{
		{pkg: "./igmpd/internal/service", bench: "Admission", benchtime: "1s", figures: []figure{
			{name: "signed joins checked, one core", unit: "joins/s", metric: "joins/s", against: "raw Ed25519 verify", versus: "verifies/s"},
		}},
		{pkg: "./igmpd/internal/membership", bench: "Epoch/servers=1000", benchtime: "3x", figures: []figure{
			{name: "1,000 servers' joins of a new epoch, without signatures", unit: "ms", metric: "ms/epoch", against: "1,000 raw Ed25519 verifies", versus: "ms/verifying"},
			{name: "plan for a silent server of 1,000", unit: "ms", metric: "ms/failure", against: "1,000 raw Ed25519 verifies", versus: "ms/verifying"},
			{name: "plan for one that was never heard, of 1,000", unit: "ms", metric: "ms/missing", against: "1,000 raw Ed25519 verifies", versus: "ms/verifying"},
		}},
		{pkg: "./internal/control/members", bench: "ThousandMembers", benchtime: "3x", figures: []figure{
			{name: "control channel, 1,000 members: each sends", unit: "frames/s", metric: "frames-sent/s", against: "each hears", versus: "frames-heard/s"},
			{name: "control channel, 1,000 members: each sends", unit: "B/s", metric: "bytes-sent/s", against: "each hears", versus: "bytes-heard/s"},
			{name: "control channel, 1,000 members: sending", unit: "ms CPU/s", metric: "ms-sending/s", against: "a core", versus: "ms-core/s"},
			{name: "control channel, 1,000 members: hearing", unit: "ms CPU/s", metric: "ms-hearing/s", against: "a core", versus: "ms-core/s"},
			{name: "control channel, 1,000 members: hearing", unit: "ms CPU/s", metric: "ms-hearing/s", against: "bare hashes and verifies", versus: "ms-bare/s"},
		}},
		{pkg: "./igmpd/internal/kernel", bench: "Forward", benchtime: "1s", figures: []figure{
			{name: "packet of nobody's user, sender included", unit: "ns", metric: "ns/unowned", against: "sender alone", versus: "ns/sender"},
			{name: "packet by the kernel's table, sender included", unit: "ns", metric: "ns/table", against: "sender alone", versus: "ns/sender"},
			{name: "packet by the accelerator, sender included", unit: "ns", metric: "ns/accelerator", against: "sender alone", versus: "ns/sender"},
			{name: "packet by source entries, sender included", unit: "ns", metric: "ns/source", against: "sender alone", versus: "ns/sender"},
			{name: "packet by the accelerator, sender included", unit: "ns", metric: "ns/accelerator", against: "kernel's table", versus: "ns/table"},
			{name: "packet by source entries, sender included", unit: "ns", metric: "ns/source", against: "kernel's table", versus: "ns/table"},
		}},
		{pkg: "./internal/steer", bench: "NetLookup", benchtime: "1x", figures: []figure{
			{name: "steering lookup, 1 M sources, 4,096 slots", unit: "ns", metric: "ns/slots", against: "empty program", versus: "ns/empty"},
			{name: "steering lookup, overrides for 1 % of users", unit: "ns", metric: "ns/overrides", against: "slots alone", versus: "ns/slots"},
			{name: "steering lookup, one portion that is no slot", unit: "ns", metric: "ns/prefix", against: "slots alone", versus: "ns/slots"},
		}},
		{pkg: "./lbd/internal/dataplane", bench: "NetKeep", benchtime: "1x", figures: []figure{
			{name: "agent's program, service that keeps no connections", unit: "ns", metric: "ns/plain", against: "packet for no service", versus: "ns/other"},
			{name: "agent's program, packet of a known connection", unit: "ns", metric: "ns/known", against: "keeps no connections", versus: "ns/plain"},
			{name: "agent's program, packet of a known flow of UDP", unit: "ns", metric: "ns/known-udp", against: "keeps no connections", versus: "ns/plain"},
			{name: "agent's program, packet for a former owner", unit: "ns", metric: "ns/unknown", against: "keeps no connections", versus: "ns/plain"},
		}},
		{pkg: "./lbd/internal/dataplane", bench: "NetForward", benchtime: "1x", figures: []figure{
			{name: "packet forwarded to another server, sender included", unit: "ns", metric: "ns/forwarded", against: "not forwarded", versus: "ns/direct"},
			{name: "upload forwarded to another server", unit: "MB/s", metric: "MB/s-forwarded", against: "not forwarded", versus: "MB/s-direct"},
		}},
		{pkg: "./lbd/internal/dyntcp/kernel", bench: "NetConnect/close", benchtime: "500x", figures: []figure{
			{name: "connections that can move, made and closed", unit: "1/s", metric: "connects/s-extended", against: "without the programs", versus: "connects/s-plain"},
			{name: "connections to others, made and closed", unit: "1/s", metric: "connects/s-other", against: "without the programs", versus: "connects/s-plain"},
			{name: "handshake of a connection that can move, p50", unit: "us", metric: "handshake-us-extended", against: "without the programs", versus: "handshake-us-plain"},
		}},
		{pkg: "./lbd/internal/dyntcp/kernel", bench: "NetConnect/request", benchtime: "500x", figures: []figure{
			{name: "connections that can move, a request each", unit: "1/s", metric: "connects/s-extended", against: "without the programs", versus: "connects/s-plain"},
			{name: "connections to others, a request each", unit: "1/s", metric: "connects/s-other", against: "without the programs", versus: "connects/s-plain"},
		}},
		{pkg: "./lbd/internal/mover", bench: "NetTransfer", benchtime: "300x", figures: []figure{
			{name: "blackout of a transfer, paced stream, p50", unit: "ms", metric: "blackout-p50-ms", against: "longest wait in 30 ms of quiet, p50", versus: "quiet-p50-ms"},
			{name: "blackout of a transfer, paced stream, p99", unit: "ms", metric: "blackout-p99-ms", against: "longest wait in 30 ms of quiet, p99", versus: "quiet-p99-ms"},
			{name: "switch of a transfer, paced stream, p50", unit: "ms", metric: "switch-p50-ms", against: "a commit that moves nothing, p50", versus: "still-p50-ms"},
			{name: "switch of a transfer, paced stream, p99", unit: "ms", metric: "switch-p99-ms", against: "a commit that moves nothing, p99", versus: "still-p99-ms"},
		}},
		{pkg: "./lbd/internal/mover", bench: "NetBulk", benchtime: "100x", figures: []figure{
			{name: "blackout of a transfer, bulk, p50", unit: "ms", metric: "blackout-p50-ms", against: "longest wait in 30 ms of quiet, p50", versus: "quiet-p50-ms"},
			{name: "blackout of a transfer, bulk, p99", unit: "ms", metric: "blackout-p99-ms", against: "longest wait in 30 ms of quiet, p99", versus: "quiet-p99-ms"},
		}},
		{pkg: "./lbd/internal/mover", bench: "NetDynamic", benchtime: "400x", figures: []figure{
			{name: "blackout of a dynamic move, paced stream, p50", unit: "ms", metric: "blackout-p50-ms", against: "longest wait in 30 ms of quiet, p50", versus: "quiet-p50-ms"},
			{name: "blackout of a dynamic move, paced stream, p99", unit: "ms", metric: "blackout-p99-ms", against: "longest wait in 30 ms of quiet, p99", versus: "quiet-p99-ms"},
			{name: "switch of a dynamic move, paced stream, p50", unit: "ms", metric: "switch-p50-ms", against: "a commit that moves nothing, p50", versus: "still-p50-ms"},
			{name: "switch of a dynamic move, paced stream, p99", unit: "ms", metric: "switch-p99-ms", against: "a commit that moves nothing, p99", versus: "still-p99-ms"},
		}},
		{pkg: "./lbd/internal/mover", bench: "NetBatch", benchtime: "2x", figures: []figure{
			{name: "10,000 idle connections moved in one batch", unit: "connections/s", metric: "connections/s", against: "frozen and restored, one after the other", versus: "connections/s-kernel"},
		}},
		{pkg: "./lbd/internal/relay", bench: "Relay", benchtime: "5x", figures: []figure{
			{name: "HTTP requests through the relay", unit: "requests/s", metric: "requests/s-relay", against: "without it", versus: "requests/s-direct"},
			{name: "download through the relay", unit: "MB/s", metric: "MB/s-relay", against: "without it", versus: "MB/s-direct"},
		}},
		{pkg: "./tdpd/internal/fastpath", bench: "NetSteering", benchtime: "1x", figures: []figure{
			{name: "steering program, 1 source", unit: "ns", metric: "ns/1", against: "constant push", versus: "ns/push"},
			{name: "steering program, 1 k sources", unit: "ns", metric: "ns/1k", against: "constant push", versus: "ns/push"},
			{name: "steering program, 64 k sources", unit: "ns", metric: "ns/64k", against: "constant push", versus: "ns/push"},
			{name: "steering program, 1 M sources", unit: "ns", metric: "ns/1M", against: "constant push", versus: "ns/push"},
			{name: "steering program, 1 M sources, median", unit: "ns", metric: "ns-median/1M", against: "constant push", versus: "ns-median/push"},
			{name: "steering program, 1 M sources, in UDP", unit: "ns", metric: "ns/udp", against: "a label alone", versus: "ns/1M"},
			{name: "steering program, 1 M sources", unit: "ns", metric: "ns/1M", against: "one that keeps connections", versus: "ns/lru"},
			{name: "steering program toward routers, 1 M sources", unit: "ns", metric: "ns/router", against: "toward users", versus: "ns/1M"},
			{name: "steering program toward routers, 1 k sources", unit: "ns", metric: "ns/router-1k", against: "toward users", versus: "ns/1k"},
			{name: "steering program toward routers, 1 k sources, told of", unit: "ns", metric: "ns/tell-1k", against: "not told of", versus: "ns/router-1k"},
			{name: "steering program, overrides for 1 % of 1 M", unit: "ns", metric: "ns/1M+10k", against: "without overrides", versus: "ns/1M"},
			{name: "steering program, 1 M overrides", unit: "ns", metric: "ns/1M+1M", against: "without overrides", versus: "ns/1M"},
			{name: "steering program, 1 M overrides, median", unit: "ns", metric: "ns-median/1M+1M", against: "without overrides", versus: "ns-median/1M"},
		}},
		{pkg: "./tdpd/internal/fastpath", bench: "NetMillionOverrides", benchtime: "3x", figures: []figure{
			{name: "1 M overrides loaded", unit: "ms", metric: "ms/load", against: "into a BPF hash", versus: "ms/hash"},
		}},
		{pkg: "./tdpd/internal/kernel", bench: "VMInstall", benchtime: "3x", vm: true, figures: []figure{
			{name: "labels installed", unit: "1/s", metric: "labels/s", against: "ip -batch", versus: "batch-labels/s"},
			{name: "prefixes with labels installed", unit: "1/s", metric: "prefixes/s", against: "ip -batch", versus: "batch-prefixes/s"},
		}},
		{pkg: "./tdpd/internal/labels", bench: "FEC", benchtime: "1x", figures: []figure{
			{name: "memory of each of 100,000 FECs, two peers", unit: "B", metric: "B/FEC", against: "without ILM and FTN", versus: "B/FEC-without-tables"},
		}},
		{pkg: "./tdpd/internal/service", bench: "Routes", benchtime: "5x", figures: []figure{
			{name: "routes of BGP that change, to FECs", unit: "routes/s", metric: "routes/s", against: "the owner of FECs alone", versus: "routes/s-alone"},
		}},
		{pkg: "./tdpd/internal/interop", bench: "VMWithdraw", benchtime: "5x", vm: true, figures: []figure{
			{name: "withdraw along three routers", unit: "ms", metric: "ms/first", against: "to the one in the middle", versus: "ms/middle"},
		}},
	}
}
