package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"

	"github.com/manycast/manycast/internal/alloc"
)

// options of a simulation.
type options struct {
	users, servers, bits int
	seed                 uint64
	hysteresis           float64
	chance               float64        // 1: users come and go by chance; 0: of each class as many as expected are active everywhere
	only                 *regexp.Regexp // of policies
	log                  io.Writer
}

func simulate(o options, w io.Writer, dir string) error {
	days, err := allDays(o)
	if err != nil {
		return err
	}
	printDays(w, o, days)
	costs, err := allCosts(o)
	if err != nil {
		return err
	}
	printCosts(w, costs)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(struct {
		Users, Servers, SlotBits int
		Seed                     uint64
		Days                     []*day
		Epochs                   []cost
	}{o.users, o.servers, o.bits, o.seed, days, costs}, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return plot(dir, days, costs)
}

// costBits are the slots that epochs are measured with.
var costBits = []int{8, 12, 14, 16}

// allCosts are those of epochs of more and more servers and slots.
func allCosts(o options) (costs []cost, err error) {
	for _, bits := range costBits {
		for _, servers := range []int{3, 5, 10, 30, 100, 300, 1000, 3000, alloc.MaxServers} {
			if servers > 1<<bits || servers > 4*o.servers {
				continue
			}
			c, err := measureCost(servers, bits)
			if err != nil {
				return nil, fmt.Errorf("%d servers, 2^%d slots: %w", servers, bits, err)
			}
			costs = append(costs, c)
		}
	}
	return costs, nil
}

func printDays(w io.Writer, o options, days []*day) {
	fmt.Fprintf(w, "seed %d: %d users, %d servers, %d slots, one day, a minute at a time\n\n", o.seed, o.users, o.servers, 1<<o.bits)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "policy\tmax/mean\tp99/mean\tdeviation\tepochs\tspace moved\tneeded\tby reports\tusers moved\tturns a server\tmost\track\track back\tsurge\tstep\t")
	for _, d := range days {
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.3f\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.2f\t%d\t%s\t%s\t%s\t%s\t\n", d.Policy, d.Highest, d.P99, d.Deviation, d.Epochs, d.Moved, d.Needed, d.Followed,
			d.UsersMoved, d.TurnsMean, d.TurnsMost, minutes(d.Rack), minutes(d.RackBack), minutes(d.Surge), minutes(d.Step))
	}
	tw.Flush()
	fmt.Fprintln(w)
}

func minutes(n int) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n, " min")
}

func printCosts(w io.Writer, costs []cost) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "servers\tslots\tannounce kB\tcommit kB\tframes\tframes kB\tannounce ms\tjoins kB\tbytes a server\tparts\tportions\tNext ms\t")
	for _, c := range costs {
		fmt.Fprintf(tw, "%d\t%d\t%.1f\t%.1f\t%d\t%.1f\t%.0f\t%.1f\t%.0f\t%d\t%d\t%.1f\t%s\n", c.Servers, 1<<c.SlotBits, float64(c.Announce)/1e3, float64(c.Commit)/1e3, c.Frames,
			float64(c.Bytes)/1e3, c.Spread, float64(c.Joins)/1e3, c.JoinMean, c.JoinParts, c.Portions, c.Next, c.TooLarge)
	}
	tw.Flush()
}
