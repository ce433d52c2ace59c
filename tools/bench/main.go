// Bench runs the suite's benchmarks and prints one table: each figure beside what it is compared with, measured in the same run.
// It writes the same to a JSON file for machines.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"text/tabwriter"
)

func main() {
	out := flag.String("o", "bench.json", "file to write the figures to")
	count := flag.Int("count", 3, "runs of each benchmark; the best one counts")
	flag.Parse()
	if err := run(os.Stdout, *out, *count); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, path string, count int) error {
	var all []result
	for _, s := range suites() {
		fmt.Fprintln(os.Stderr, "bench:", s.pkg, s.run)
		text, err := s.output(count)
		if err != nil {
			return err
		}
		rows, err := s.results(parse(bytes.NewReader(text)))
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", s.pkg, err, text)
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

func (s suite) output(count int) ([]byte, error) {
	args := []string{"test", "-run", "^$", "-bench", s.run, "-count", fmt.Sprint(count)}
	if s.benchtime != "" {
		args = append(args, "-benchtime", s.benchtime)
	}
	cmd := exec.Command("go", append(args, s.pkg)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, text)
	}
	return text, nil
}

func print(w io.Writer, rows []result) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "FIGURE\tVALUE\tUNIT\tAGAINST\tITS VALUE\tRATIO")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%.4g\t%s\t%s\t%.4g\t%.3f\n", r.Name, r.Value, r.Unit, r.Against, r.AgainstValue, r.Ratio)
	}
	tw.Flush()
}
