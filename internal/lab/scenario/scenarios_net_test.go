package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/testnet"
)

// newStore has the real daemons, those of make build: what has not changed since is not linked again. Labs are in a directory that their user passes.
func newStore(t *testing.T, programs ...string) *lab.Store {
	testnet.New(t) // fails the test where namespaces cannot be made
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range append([]string{"cli"}, programs...) {
		name := filepath.Join(bin, map[bool]string{true: "manycast", false: program}[program == "cli"])
		if out, err := exec.Command("go", "build", "-o", name, "github.com/manycast/manycast/"+program).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	root, err := os.MkdirTemp("/tmp", "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return &lab.Store{Root: root, Bin: bin, Notice: t.Output()}
}

// rerun runs a scenario, and again, twice at most, where not all is well and the machine kept daemons from running for so long that they were as
// good as dead: what such a run shows is the machine's.
func rerun(t *testing.T, run func(context.Context) (*report.Report, error)) *report.Report {
	t.Helper()
	for again := 0; ; again++ {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		r, err := run(ctx)
		cancel()
		isWell, isStarved := err == nil && r.OK(), r != nil && r.StarvedMS >= report.Milliseconds(silentFor)
		if isWell || !isStarved || again == 2 {
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		for _, c := range r.Checks {
			if !c.OK {
				t.Logf("%s: %s", c.Name, c.Detail)
			}
		}
		t.Logf("the machine kept a daemon from running for %v ms: once more; %v", r.StarvedMS, err)
	}
}

// allHold fails the test with each check that does not hold, but those named.
func allHold(t *testing.T, r *report.Report, but ...string) {
	t.Helper()
	if len(r.Checks) == 0 {
		t.Error("nothing was checked")
	}
	for _, c := range r.Checks {
		if !c.OK && !slices.Contains(but, c.Name) {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
}

// One failure of most kinds, with the real daemons; all of them are `make failures`.
func TestNetFailures(t *testing.T) {
	store := newStore(t, "igmpd", "lbd", "dnsd")
	o := Options{Clients: 16, Name: fmt.Sprintf("f%d", os.Getpid()), Few: true, Progress: NewProgress(t.Output(), false)}
	r := rerun(t, func(ctx context.Context) (*report.Report, error) { return Failures(ctx, store, o) })
	if len(r.Failures) != len(report.Kinds) {
		t.Errorf("%d failures", len(r.Failures))
	}
	allHold(t, r)
}

// All phases of tags, with the real daemons.
func TestNetTags(t *testing.T) {
	store := newStore(t, "igmpd", "lbd", "dnsd", "tdpd")
	o := Options{Clients: 24, Duration: 40 * time.Second, Name: fmt.Sprintf("t%d", os.Getpid()), Progress: NewProgress(t.Output(), false)}
	allHold(t, rerun(t, func(ctx context.Context) (*report.Report, error) { return Tags(ctx, store, o) }))
}

// All phases of bgp, with the real daemons, FRR and gobgpd; once more, as short as they can be, with FRR's bfdd.
func TestNetBGP(t *testing.T) {
	store := newStore(t, "igmpd", "lbd", "dnsd", "tdpd")
	for bfd, duration := range map[string]time.Duration{"false": 40 * time.Second, "true": MinDuration} {
		t.Run("bfd="+bfd, func(t *testing.T) {
			o := Options{
				Clients: 24, Duration: duration, Set: map[string]string{"bfd": bfd}, Name: fmt.Sprintf("b%d", os.Getpid()), Progress: NewProgress(t.Output(), false),
			}
			r := rerun(t, func(ctx context.Context) (*report.Report, error) { return BGP(ctx, store, o) })
			allHold(t, r)
			if x := r.BGP; x == nil || (x.BFDMS > 0) != (bfd == "true") || x.BFDMS >= x.HoldMS || len(x.ServerRoute) == 0 {
				t.Errorf("%+v", x)
			}
		})
	}
}

// Connections of users who go to and fro, with the real daemons: one strategy in each mode. On one link a SYN between the loser's word and the
// winner's is sent again: how many there are hangs on what else the machine does.
func TestNetHandover(t *testing.T) {
	store := newStore(t, "igmpd", "lbd", "dnsd", "tdpd")
	for strategy, mode := range map[string]string{report.Reset: service.Multicast, string(service.Transfer): service.Tags} {
		t.Run(strategy, func(t *testing.T) {
			o := Options{
				Clients: 24, Duration: 12 * time.Second, Strategy: strategy, Set: map[string]string{"mode": mode},
				Name: fmt.Sprintf("h%d", os.Getpid()), Progress: NewProgress(t.Output(), false),
			}
			r := rerun(t, func(ctx context.Context) (*report.Report, error) { return Handover(ctx, store, o) })
			allHold(t, r, "hardly anybody waits long")
		})
	}
}

// Users with dynamic TCP and without, who go to and fro at random, and attackers, with the real daemons.
func TestNetDynTCP(t *testing.T) {
	store := newStore(t, "igmpd", "lbd", "dnsd")
	o := Options{Clients: 16, Duration: 24 * time.Second, Name: fmt.Sprintf("d%d", os.Getpid()), Progress: NewProgress(t.Output(), false)}
	r := rerun(t, func(ctx context.Context) (*report.Report, error) { return DynTCP(ctx, store, o) })
	allHold(t, r)
	if d := r.DynTCP; d == nil || d.Moves < 100 || d.Followed < 100 || d.Refused == 0 || d.Attacks == 0 {
		t.Errorf("%+v", d)
	}
}
