package scenario

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/manycast/manycast/internal/lab/report"
)

// The server with a tdpd on its own host, and the router of its rack, which hears of the host's route.
const (
	hosted = "s1"
	rack   = "t"
)

// drainServer: the server's users are others' first, then its host's route goes, so that the rack's router has it no more when the command ends.
func (b *bgp) drainServer(ctx context.Context) error {
	before, err := b.heard()
	if err != nil {
		return err
	}
	if err := b.cli(ctx, "server", "drain", b.member(hosted), "--wait"); err != nil {
		return err
	}
	left, err := b.paths(ctx, rack, "labeled-unicast", b.hostRoute())
	if err != nil {
		return err
	}
	after, err := b.heard()
	if err != nil {
		return err
	}
	b.checkHeard("a drained server's host route goes in order", after[len(before):], report.RouteSoft, report.RouteWithdrawn)
	b.check("a drained server's host route is gone when the command ends", len(left) == 0, "%s has %d paths to %s", rack, len(left), b.hostRoute())
	_, err = b.web.await(ctx, hosted+" has nothing", func(c map[string]int) bool { return c[hosted] == 0 })
	return err
}

func (b *bgp) undrainServer(ctx context.Context) error {
	before, err := b.heard()
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"server", "weight", b.member(hosted), "default"}, {"server", "undrain", b.member(hosted), "--wait"}} {
		if err := b.cli(ctx, args...); err != nil {
			return err
		}
	}
	if err := b.awaitHost(ctx); err != nil {
		return err
	}
	if b.found.ServerRoute, err = b.heard(); err != nil {
		return err
	}
	b.checkHeard("an undrained server's host route comes in order", b.found.ServerRoute[len(before):], report.RouteSoft, report.RoutePlain)
	return b.awaitEven(ctx)
}

func (b *bgp) checkHeard(name string, got []string, want ...string) {
	b.check(name, slices.Equal(got, want), "%s of %s: %s", rack, b.hostRoute(), strings.Join(got, ", "))
}

// hostRoute is what the host's tdpd announces.
func (b *bgp) hostRoute() string {
	return b.lab.Topology().Node(hosted).Addresses["eth0"][0].Addr().String() + "/32"
}

// awaitHost waits until the rack's router has the host's route as it is to be, with the label that the host's tdpd says.
func (b *bgp) awaitHost(ctx context.Context) error {
	return b.poll(ctx, fmt.Sprintf("%s has %s's route and label", rack, hosted), func() (bool, error) {
		var own []struct {
			Prefix string `json:"prefix"`
			Label  uint32 `json:"label"`
		}
		if err := b.tell(ctx, &own, "bgp", "labels", "--router", hosted); err != nil {
			return false, err
		}
		has, err := b.paths(ctx, rack, "labeled-unicast", b.hostRoute())
		if err != nil {
			return false, err
		}
		heard, err := b.heard()
		return len(own) == 1 && len(has) == 1 && own[0].Prefix == b.hostRoute() && own[0].Label == has[0].Label &&
			len(heard) > 0 && heard[len(heard)-1] == report.RoutePlain, err
	})
}

// heard is what the rack's router has been told of the host's route, in order.
func (b *bgp) heard() ([]string, error) {
	text, err := os.ReadFile(b.lab.LogPath(rack, "bgpd"))
	return heardRoutes(string(text), b.hostRoute()), err
}

// heardRoutes reads the log of FRR's bgpd with "debug bgp updates in": a line with what an update says of all its prefixes, then one of each.
func heardRoutes(log, prefix string) (heard []string) {
	attributes := ""
	for line := range strings.Lines(log) {
		_, update, _ := strings.Cut(strings.TrimSpace(line), " rcvd ")
		what := ""
		switch said, is := strings.CutPrefix(update, "UPDATE w/ attr: "); {
		case is:
			attributes = said
		case strings.HasPrefix(update, "UPDATE about "+prefix+" ") && strings.HasSuffix(update, "withdrawn"):
			what = report.RouteWithdrawn
		case strings.HasPrefix(update, prefix+" "):
			what = routeLike(attributes)
		}
		if what != "" && (len(heard) == 0 || heard[len(heard)-1] != what) {
			heard = append(heard, what)
		}
	}
	return heard
}

// routeLike is what the attributes of a route of one AS make of it: it is soft where it is prepended and marked, both.
func routeLike(attributes string) string {
	_, path, _ := strings.Cut(attributes, "path ")
	prepended, marked := len(strings.Fields(path)) > 1, strings.Contains(attributes, "community graceful-shutdown,")
	switch {
	case prepended && marked:
		return report.RouteSoft
	case !prepended && !marked && path != "":
		return report.RoutePlain
	}
	return attributes
}
