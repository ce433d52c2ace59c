package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// igmpd and its holder say before they do anything else which capability is missing.
func TestNetMissingCapabilities(t *testing.T) {
	r := newRig(t)
	r.configure("r1", "", r1Interfaces, "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	router := []string{"--config", r.configs["r1"]}
	holder := []string{"holder", "--socket", filepath.Join(r.dir, "holder.sock")}
	for _, tt := range []struct {
		argv []string
		drop string
	}{
		{router, "net_admin"}, {router, "net_raw"}, {router, "bpf"}, {holder, "net_admin"}, {holder, "net_raw"},
	} {
		drop := []string{"setpriv", "--bounding-set=-" + tt.drop, "--inh-caps=-" + tt.drop, "env", daemonEnv + "=1", self}
		out, err := r.r1.Run(append(drop, tt.argv...)...)
		if want := "lacks CAP_" + strings.ToUpper(tt.drop) + " (to "; err == nil || !strings.Contains(out, want) {
			t.Errorf("%s without %s: %v, %s; want %q", tt.argv[0], tt.drop, err, out, want)
		}
	}

	// By source there is no program to load, and no capability to do so.
	r.mode = "source"
	r.configure("r2", "", r2Interfaces, "")
	r.r2.Start("setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "env", daemonEnv+"=1", self, "--config", r.configs["r2"])
	r.joined("r2", 0)
}
