package server

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOffer: a process is to be killed rather than others, and never later than it is already.
func TestOffer(t *testing.T) {
	t.Parallel()
	for before, want := range map[string]string{"0\n": "500", "-900\n": "500", "500\n": "500\n", "1000\n": "1000\n"} {
		path := filepath.Join(t.TempDir(), "oom_score_adj")
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := offer(path); err != nil {
			t.Errorf("%q: %v", before, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", before, got, err, want)
		}
	}
	if offer(filepath.Join(t.TempDir(), "none")) == nil {
		t.Error("no file, no error")
	}
}
