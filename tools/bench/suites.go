package main

// suites are all figures of docs/performance.md.
func suites() []suite {
	return []suite{}
}
