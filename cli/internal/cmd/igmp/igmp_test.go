package igmp

import (
	"bytes"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

var status = &igmpdv1.Status{
	Router: "r2", Admitted: 12,
	Groups: []*igmpdv1.Group{
		{Group: "239.80.80.80", Private: true, Members: 2, Term: 3, Ports: []string{"lan", "s1"}},
		{Group: "225.1.1.1", Ports: []string{"lan"}},
	},
	Joins: []*igmpdv1.Join{{
		Group: "239.80.80.80", Requester: "10.3.0.11", Port: "lan", Owner: 1, Epoch: "3.7", KeyId: "0badcafe", ExpiresMs: 4200, Packets: 99,
		Permit: []string{"0.0.0.0/0.0.0.3", "0.0.0.4/0.0.0.7", "10.0.0.1", "10.0.0.2", "10.0.0.3"}, Deny: []string{"10.0.0.9"},
	}},
	Refused:      map[string]uint64{"unsigned": 4, "duplicate": 0},
	LastRefusals: []*igmpdv1.Refusal{{Time: "2026-03-02T09:00:00Z", Reason: "unsigned", Port: "lan", Source: "10.3.0.66", Group: "239.80.80.80"}},
}

// serve gives the status to whoever connects.
func serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "status.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			json.NewEncoder(c).Encode(status)
			c.Close()
		}
	}()
	return path
}

func run(t *testing.T, format string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := New(&cmdutil.Factory{Out: &out, Output: format, Timeout: time.Second})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestVerbs(t *testing.T) {
	socket := serve(t)
	tests := []struct {
		verb string
		want []string
	}{
		{"groups", []string{"r2", "239.80.80.80", "private", "lan,s1", "225.1.1.1", "public"}},
		{"joins", []string{"10.3.0.11", "3.7", "4.2s", "99", "10.0.0.1 +2 but 10.0.0.9"}},
		{"refusals", []string{"unsigned", "4", "10.3.0.66", "duplicate", "0"}},
	}
	for _, tt := range tests {
		out, err := run(t, "table", tt.verb, "--socket", socket)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range tt.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s lacks %q:\n%s", tt.verb, w, out)
			}
		}
		var value []map[string]any
		if out, err = run(t, "json", tt.verb, "--socket", socket, "r2"); err != nil || json.Unmarshal([]byte(out), &value) != nil || value[0]["router"] != "r2" {
			t.Errorf("%s as JSON: %v\n%s", tt.verb, err, out)
		}
	}
}

func TestErrorsNameTheWayOut(t *testing.T) {
	socket := serve(t)
	if _, err := run(t, "table", "groups", "--socket", socket, "r9"); err == nil || !strings.Contains(err.Error(), "r2") {
		t.Errorf("another router's name: %v", err)
	}
	if _, err := run(t, "table", "groups", "--socket", socket+"x"); err == nil || !strings.Contains(err.Error(), "status socket") {
		t.Errorf("no such socket: %v", err)
	}
	if _, err := run(t, "table", "groups"); err == nil || !strings.Contains(err.Error(), "--socket") {
		t.Errorf("no bus: %v", err)
	}
}
