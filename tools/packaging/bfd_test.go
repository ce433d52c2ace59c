package packaging

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetBFDCommands: the commands of docs/bgp.md have FRR's bfdd run on a host where FRR runs without it, and let the user of tdpd's unit speak with it; others may not. systemd
// takes what they add to the unit.
func TestNetBFDCommands(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "system"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "commands"), []byte(commandsOf(t, "bgp.md", "BFD")), 0o600); err != nil {
		t.Fatal(err)
	}
	out := must(t, nil, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-e", "tools/packaging/testdata/frr-host", dir)
	for _, want := range []string{"before: 0\n", "systemctl restart frr\n", "with the unit's groups: 1\n", "without: 0\n", "systemctl daemon-reload\n", "systemctl restart manycast-tdpd\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q:\n%s", want, out)
		}
	}

	text, err := os.ReadFile(filepath.Join(dir, "system", tdpdDropIn))
	if err != nil {
		t.Fatal(err)
	}
	if out := verifyDropIn(t, text); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	if verifyDropIn(t, bytes.Replace(text, []byte("SupplementaryGroups="), []byte("SuplementaryGroups="), 1)) == "" {
		t.Error("systemd does not look at it")
	}
}

const tdpdDropIn = "manycast-tdpd.service.d/bfdd.conf"

// verifyDropIn is what systemd has to say of tdpd's unit with a drop-in.
func verifyDropIn(t *testing.T, text []byte) string {
	t.Helper()
	const unit = "manycast-tdpd.service"
	dir := t.TempDir()
	put := func(name string, mode os.FileMode, text []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
	}
	installed, err := os.ReadFile(filepath.Join("systemd", unit))
	if err != nil {
		t.Fatal(err)
	}
	put("usr/lib/systemd/system/"+unit, 0o644, installed)
	put("usr/bin/tdpd", 0o755, nil)
	put("etc/systemd/system/"+tdpdDropIn, 0o644, text)
	out, _ := run(t, nil, "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--root="+dir, unit)
	return out
}

// commandsOf are root's commands in a section of a document, one a line.
func commandsOf(t *testing.T, document, section string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", document))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## "+section+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	_, rest, _ = strings.Cut(rest, "```console\n")
	rest, _, _ = strings.Cut(rest, "```")
	var commands strings.Builder
	for line := range strings.Lines(rest) {
		if command, is := strings.CutPrefix(line, "# "); is {
			commands.WriteString(command)
		}
	}
	if commands.Len() == 0 {
		t.Fatalf("docs/%s: no commands below %s", document, section)
	}
	return commands.String()
}
