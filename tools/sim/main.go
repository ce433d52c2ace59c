// sim is a day of a service with millions of users and a thousand servers: the policies' and the allocator's real code, and the real encodings of
// what they say, against a world that is made up (docs/simulation.md). The same seed gives the same day.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"

	"github.com/manycast/manycast/internal/alloc/policy"
)

func main() {
	o := options{log: os.Stderr}
	flag.IntVar(&o.users, "users", 10_000_000, "users")
	flag.IntVar(&o.servers, "servers", 1000, "servers")
	flag.IntVar(&o.bits, "bits", 16, "bits of slots by suffix")
	flag.Uint64Var(&o.seed, "seed", 1, "of all chance")
	flag.Float64Var(&o.chance, "chance", 1, "how much of it there is in who is active, in standard deviations of real life")
	flag.Float64Var(&o.hysteresis, "hysteresis", policy.DefaultBalance().Hysteresis, "of the feedback policies")
	only := flag.String("policies", "", "regular expression: run only those policies")
	out := flag.String("o", "docs/sim", "directory for results.json and the plots")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		err = simulate(o, os.Stdout, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}
