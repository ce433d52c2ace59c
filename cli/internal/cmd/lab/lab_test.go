package lab

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/scenario"
)

// run is `manycast lab ARGS` on the labs below root.
func run(t *testing.T, root string, args ...string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	f := &cmdutil.Factory{In: strings.NewReader(""), Out: &out, Err: &out, Now: time.Now, Output: "json"}
	cmd := newCommand(&tools{f, func() (*lab.Store, error) { return &lab.Store{Root: root, Bin: "/nonexistent"}, nil }})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestListWithoutLabs(t *testing.T) {
	out, err := run(t, t.TempDir(), "list")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Name, About string
		Up          []string
	}
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(lab.Topologies()) || rows[0].Name == "" || rows[0].About == "" || rows[0].Up == nil || len(rows[0].Up) != 0 {
		t.Errorf("%s", out)
	}
	if out, err := run(t, t.TempDir(), "status"); err != nil || strings.TrimSpace(out) != "[]" {
		t.Errorf("status: %q, %v", out, err)
	}
}

func TestErrorsNameTheWayOut(t *testing.T) {
	none, two := t.TempDir(), t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(two, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		root string
		args []string
		want string
	}{
		{none, []string{"exec", "r1", "--", "true"}, "manycast lab up"},
		{two, []string{"exec", "r1", "--", "true"}, "name one of a, b with --lab"},
		{none, []string{"exec", "r1"}, "at least 2"},
		{none, []string{"status", "a"}, "manycast lab up"},
		{none, []string{"up", "multicats"}, "multicast"},
		{none, []string{"up", "/nonexistent.yaml"}, "/nonexistent.yaml"},
		{none, []string{"run", "multicats"}, "multicats"},
		{none, []string{"run", "multicast", "--duration", "1s"}, "want at least " + scenario.MinDuration.String()},
		{none, []string{"run", "multicast", "--set", "accelerator"}, "key=value"},
	} {
		if out, err := run(t, tt.root, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("lab %v: %v, want %q\n%s", tt.args, err, tt.want, out)
		}
	}
}

func TestRunSaysHowLongItTakes(t *testing.T) {
	out, err := run(t, t.TempDir(), "run", "--help")
	if err != nil || !strings.Contains(out, "at least "+scenario.MinDuration.String()) {
		t.Errorf("%v\n%s", err, out)
	}
}

// A report is kept whether its checks hold or not, and one that does not hold is an error.
func TestFinish(t *testing.T) {
	for _, holds := range []bool{true, false} {
		r := &report.Report{
			Scenario: "multicast", PerServer: map[string]int{"s1": 7}, Phases: []report.Phase{{Name: "equal", BlackoutMS: 12}},
			Moves:  []report.Move{{Epoch: "1.2", FractionMoved: 0.25}},
			Checks: []report.Check{{Name: "first", OK: true}, {Name: "second", OK: holds}},
		}
		file := filepath.Join(t.TempDir(), "report.json")
		var out bytes.Buffer
		err := finish(&out, r, file)
		if (err == nil) != holds {
			t.Errorf("holds %v: %v", holds, err)
		}
		text, readErr := os.ReadFile(file)
		var back report.Report
		if readErr != nil || json.Unmarshal(text, &back) != nil || back.OK() != holds {
			t.Errorf("report: %v\n%s", readErr, text)
		}
		for _, want := range []string{"longest wait 12 ms", "epoch 1.2"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), "not: second") == holds {
			t.Errorf("holds %v:\n%s", holds, out.String())
		}
	}
	r := &report.Report{Checks: []report.Check{{OK: true}}}
	if err := finish(&bytes.Buffer{}, r, "/nonexistent/report.json"); err == nil {
		t.Error("a report that could not be written is no error")
	}
}
