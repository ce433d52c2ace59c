package holder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "holder.sock"):           "",
		filepath.Join(dir, "none", "holder.sock"):   "make the directory",
		filepath.Join(file, "holder.sock"):          "no directory",
		filepath.Join(dir, strings.Repeat("a", 99)): "at most 107",
	} {
		if err := Check(path); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
