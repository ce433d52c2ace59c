// Package testdns runs a dnsd for tests.
package testdns

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/keyfile"
)

// Names of the TSIG keys: one that may update, one that may ask.
const (
	Writer = "manycast-cli."
	Reader = "reader."
)

// DNS is a running dnsd on loopback.
type DNS struct {
	Dir          string // of the test's
	Address      string // UDP and TCP
	WriterSecret string // file
	ReaderSecret string // file
}

// WriterFlag is the --tsig of commands.
func (d *DNS) WriterFlag() string { return Writer + "=" + d.WriterSecret }

var listening = regexp.MustCompile(`msg=listening network=tcp address=(\S+)`)

// Start builds dnsd and runs it with empty zones until the test ends.
func Start(t testing.TB, zones ...string) *DNS {
	t.Helper()
	d := &DNS{Dir: t.TempDir()}
	d.WriterSecret, d.ReaderSecret = filepath.Join(d.Dir, "writer"), filepath.Join(d.Dir, "reader")
	var text strings.Builder
	fmt.Fprintf(&text, "listen = [\"127.0.0.1:0\"]\ndata_dir = %q\n", filepath.Join(d.Dir, "data"))
	for _, zone := range zones {
		fmt.Fprintf(&text, "[[zone]]\nname = %q\nns = [\"ns1.cast.example.\"]\nmbox = \"h.cast.example.\"\n", zone)
	}
	for name, file := range map[string]string{Writer: d.WriterSecret, Reader: d.ReaderSecret} {
		if err := keyfile.WriteTSIG(file); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "[[tsig]]\nname = %q\nsecret_file = %q\nupdate = %t\n", name, file, name == Writer)
	}
	config := filepath.Join(d.Dir, "dnsd.toml")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run(t, config)
	return d
}

func (d *DNS) run(t testing.TB, config string) {
	t.Helper()
	binary := filepath.Join(d.Dir, "dnsd")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/manycast/manycast/dnsd").CombinedOutput(); err != nil {
		t.Fatalf("build dnsd: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "--config", config)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		defer close(address)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("dnsd: %v", err)
		}
	})
	var ok bool
	if d.Address, ok = <-address; !ok {
		t.Fatal("dnsd ended before it listened")
	}
}
