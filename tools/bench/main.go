// Bench measures the suite and prints one table: each figure beside what it is compared with, measured in the same run. It
// writes the same to a JSON file for machines. docs/performance.md says what the figures mean. It runs in the repository's root,
// as root, with the daemons in bin/.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"text/tabwriter"
)

func main() {
	out := flag.String("o", "bench.json", "file to write the figures to")
	only := flag.String("only", "", "regular expression: run only the parts whose names match")
	count := flag.Int("count", 5, "runs of each benchmark; the one with the median ratio counts")
	plain := flag.String("plain-dns", "", "serve the zone of the benchmark on this address and nothing else; used by the benchmark itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if *plain != "" {
		err = servePlain(ctx, *plain)
	} else {
		err = run(ctx, os.Stdout, *out, *only, *count)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// part is what is measured together.
type part struct {
	name    string
	measure func(ctx context.Context) ([]result, error)
}

func parts(bin string, count int) (all []part) {
	for _, s := range suites() {
		all = append(all, part{s.bench, func(ctx context.Context) ([]result, error) { return s.measure(ctx, bin, count) }})
	}
	for _, path := range []string{accelerator, kernelTable} {
		all = append(all, part{"lab, " + path, func(ctx context.Context) ([]result, error) { return labResults(ctx, bin, path) }})
	}
	return append(all, part{"dns", func(ctx context.Context) ([]result, error) { return dnsResults(ctx, bin) }})
}

func run(ctx context.Context, w io.Writer, path, only string, count int) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	var all []result
	for _, p := range parts(bin, count) {
		if !wanted.MatchString(p.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "bench:", p.name)
		rows, err := p.measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		all = append(all, rows...)
	}
	print(w, all)
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// measure runs the suite's benchmark on one core; inside a virtual machine it is what it has.
func (s suite) measure(ctx context.Context, bin string, count int) ([]result, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark"+s.bench+"$", "-cpu", "1",
		"-count", fmt.Sprint(count), "-benchtime", s.benchtime)
	if s.vm {
		cmd.Args = append(cmd.Args, "-exec", filepath.Join(bin, "vmtest")+" --")
	}
	cmd.Args = append(cmd.Args, s.pkg)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, text)
	}
	return s.results(parse(bytes.NewReader(text), s.bench))
}

func print(w io.Writer, rows []result) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "FIGURE\tVALUE\tUNIT\tAGAINST\tITS VALUE\tRATIO")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%.5g\t%s\t%s\t%.5g\t%.3f\n", r.Name, r.Value, r.Unit, r.Against, r.AgainstValue, r.Ratio)
	}
	tw.Flush()
}
