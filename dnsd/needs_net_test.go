package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

// asDNSD makes the test's binary dnsd itself.
const asDNSD = "MANYCAST_TEST_AS_DNSD"

func TestMain(m *testing.M) {
	if os.Getenv(asDNSD) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// On port 53 dnsd wants one capability, and names it where it has to do without.
func TestNetPort53WithoutCapability(t *testing.T) {
	node := testnet.New(t).Node("ns")
	file := writeConfig(t, t.TempDir(), "")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(strings.Replace(string(text), "127.0.0.1:0", "127.0.0.1:53", 1)), 0o600)
	}
	self, err2 := filepath.Abs(os.Args[0])
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	argv := []string{"env", asDNSD + "=1", self, "--config", file}
	out, err := node.Run(append([]string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}, argv...)...)
	if want := fmt.Sprintf("listen on 127.0.0.1:53: user id %d lacks CAP_NET_BIND_SERVICE", os.Geteuid()); err == nil || !strings.Contains(out, want) {
		t.Errorf("%v, %s; want %q", err, out, want)
	}
}
