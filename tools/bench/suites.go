package main

// suites are all figures of docs/performance.md.
func suites() []suite {
	return []suite{
		{pkg: "./igmpd/internal/kernel", run: "Forward", benchtime: "500ms", figures: []figure{
			{name: "forwarding by the kernel's table, sender included", bench: "Forward/table", against: "sender alone", versus: "Forward/sender"},
			{name: "forwarding by the accelerator, sender included", bench: "Forward/accelerator", against: "kernel's table", versus: "Forward/table"},
			{name: "forwarding by source entries, sender included", bench: "Forward/source", against: "kernel's table", versus: "Forward/table"},
		}},
	}
}
