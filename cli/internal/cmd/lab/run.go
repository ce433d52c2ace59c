package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/scenario"
)

func newRun(t *tools) *cobra.Command {
	o := scenario.Options{}
	var file string
	cmd := &cobra.Command{
		Use:   "run SCENARIO",
		Short: "Run a scenario: users at work while the network changes under them",
		Long: `Run a scenario: bring its lab up, let users work while the network changes under them, take it down, check and report.
The exit status is 0 only if all checks hold.

multicast, tags, handover, bgp and dyntcp take ` + scenario.MinDuration.String() + ` at least, so that a killed server can be found and every phase be seen; handover as much for each strategy. failures takes
as long as it takes; --only and --few make it shorter.`,
		Example: "  sudo manycast lab run multicast --duration 20s --clients 60 --report report.json\n" +
			"  sudo manycast lab run failures --only server,link --report report.json\n" +
			"  sudo manycast lab run handover --strategy forward --set mode=tags --report report.json",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: scenario.Names,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			s, err := t.store()
			if err != nil {
				return err
			}
			o.Progress = scenario.NewProgress(t.Out, isTerminal(t.Out))
			run := map[string]func(context.Context, *lab.Store, scenario.Options) (*report.Report, error){
				"multicast": scenario.Multicast, "failures": scenario.Failures, "tags": scenario.Tags, "handover": scenario.Handover, "bgp": scenario.BGP,
				"dyntcp": scenario.DynTCP,
			}[args[0]]
			r, err := run(ctx, s, o)
			if r == nil {
				return err
			}
			return errors.Join(err, finish(t.Out, r, file))
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&o.Duration, "duration", 20*time.Second, fmt.Sprintf("multicast, tags, handover, bgp, dyntcp: how long the users work, at least %v; handover: under each strategy", scenario.MinDuration))
	flags.IntVar(&o.Clients, "clients", 60, "users")
	flags.StringSliceVar(&o.Only, "only", nil, "failures: kinds, of "+strings.Join(report.Kinds, ", ")+" (default: all)")
	flags.BoolVar(&o.Few, "few", false, "failures: one of each kind")
	flags.StringVar(&o.Strategy, "strategy", scenario.AllStrategies, "handover: "+strings.Join(scenario.StrategyNames(), ", ")+", or all of them in turn")
	flags.StringVar(&file, "report", "", "file for the report, in JSON")
	flags.StringVar(&o.Name, "name", "", "name of the lab (default: the topology's)")
	flags.BoolVar(&o.Static, "static", false, "multicast: portions from a file and unsigned joins: only the phases that need no bus")
	flags.StringToStringVar(&o.Set, "set", nil, "vars of the topology to set, such as accelerator=false")
	return cmd
}

// finish shows and keeps what was found; it is an error where not all checks hold.
func finish(out io.Writer, r *report.Report, file string) (err error) {
	summary(out, r)
	if file != "" {
		err = writeReport(file, r)
	}
	if !r.OK() {
		err = errors.Join(err, errors.New("not all checks hold"))
	}
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func writeReport(path string, r *report.Report) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return r.Write(f)
}

// summary says in a few lines what the report holds.
func summary(w io.Writer, r *report.Report) {
	fmt.Fprintf(w, "\n%s, %.1f s\n", r.Scenario, r.DurationS)
	fmt.Fprintf(w, "  requests     %d, %d failed, %d failed before a dead server was found\n", r.Requests.Total, r.Requests.Failed, r.Requests.FailedInDetection)
	fmt.Fprintf(w, "  connections  %d opened, %d reset by moves, %d lost with their server, %d broken\n",
		r.Connections.Opened, r.Connections.Reset, r.Connections.LostWithServer, r.Connections.Broken)
	fmt.Fprintf(w, "  answers      %v\n", r.PerServer)
	fmt.Fprintf(w, "  joins        %d admitted, refused %v\n", r.Joins.Admitted, r.Joins.Refused)
	for _, m := range r.Moves {
		fmt.Fprintf(w, "  epoch %-6s moved %.4f of the users, %.4f had to, %d connections, %.0f ms\n",
			m.Epoch, m.FractionMoved, m.FractionNeeded, m.ConnectionsAffected, m.MS)
	}
	if t := r.Tagged; t != nil {
		fmt.Fprintf(w, "  tagged       %d packets by upstream routers; by directors %d before those were told, %d since; dead server found after %.0f ms\n",
			t.PacketsTagged, t.FirstPacketsViaDirector, t.PacketsViaDirector, r.DetectMS)
	}
	if x := r.BGP; x != nil {
		fmt.Fprintf(w, "  bgp          failed requests: %d on drains, %d on a director's death; failover %.0f ms of a hold time of %.0f, BFD %.0f; %d routes withdrawn on a speaker's restart; at a neighbor %d rules, %d labelled routes; a server's host route: %s\n",
			x.DrainFailedRequests, x.DirectorDeathFailedRequests, x.FailoverMS, x.HoldMS, x.BFDMS, x.RoutesWithdrawnOnSpeakerRestart, x.FlowSpecSeenAtPeer, x.LabelledRoutesSeenAtPeer, strings.Join(x.ServerRoute, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Handover)) {
		x := r.Handover[name]
		fmt.Fprintf(w, "  %-12s %d connections, %d moves, %d reset, %d broken, %d lost with their server; bytes: %d lost, %d doubled, %d reordered; blackout p50 %.2f ms, p99 %.2f ms, at most %.2f ms\n",
			name, x.Connections, x.Moves, x.Reset, x.Broken, x.LostWithServer, x.BytesLost, x.BytesDoubled, x.BytesReordered, x.Blackout.P50, x.Blackout.P99, x.Blackout.Max)
	}
	if x := r.DynTCP; x != nil {
		fmt.Fprintf(w, "  dynamic TCP  %d connections, %d moves, %d followed, %d broken, %d hijacked, %d lost with their server; bytes: %d lost, %d doubled, %d reordered; blackout p50 %.2f ms, p99 %.2f ms, at most %.2f ms\n",
			x.Connections, x.Moves, x.Followed, x.Broken, x.Hijacked, x.LostWithServer, x.BytesLost, x.BytesDoubled, x.BytesReordered, x.Blackout.P50, x.Blackout.P99, x.Blackout.Max)
		fmt.Fprintf(w, "  attackers    %d messages refused: %v\n", x.Refused, x.RefusedBy)
		fmt.Fprintf(w, "  handshakes   p50 %.0f us plain, %.0f us with dynamic TCP\n", x.Handshake.Plain, x.Handshake.Extended)
	}
	for _, x := range r.Failures {
		fmt.Fprintf(w, "  %-62s detected %6.1f ms, outage %6.1f ms, %d failed, %d lost, %d broken\n",
			x.What, x.DetectMS, x.OutageMS, x.RequestsFailed, x.LostWithServer, x.Broken)
	}
	for _, p := range r.Phases {
		fmt.Fprintf(w, "  %-28s %d failed, longest wait %d ms\n", p.Name, p.RequestsFailed, p.BlackoutMS)
	}
	var failed []string
	for _, c := range r.Checks {
		if !c.OK {
			failed = append(failed, c.Name)
		}
	}
	fmt.Fprintf(w, "  checks       %d of %d hold", len(r.Checks)-len(failed), len(r.Checks))
	if len(failed) > 0 {
		fmt.Fprintf(w, "; not: %s", strings.Join(failed, "; "))
	}
	fmt.Fprintln(w)
}
