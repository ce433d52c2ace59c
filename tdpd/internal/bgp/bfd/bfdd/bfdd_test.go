package bfdd

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp/bfd"
)

func TestStates(t *testing.T) {
	text := `[
{"multihop":false,"peer":"10.0.1.1","vrf":"default","status":"up","diagnostic":"ok","remote-diagnostic":"ok"},
{"multihop":false,"peer":"10.0.1.2","vrf":"default","status":"down","diagnostic":"control detection time expired","remote-diagnostic":"ok"},
{"multihop":false,"peer":"10.0.1.3","vrf":"default","status":"down","diagnostic":"neighbor signaled session down","remote-diagnostic":"control detection time expired"},
{"multihop":false,"peer":"10.0.1.4","vrf":"default","status":"down","diagnostic":"neighbor signaled session down","remote-diagnostic":"administratively down"},
{"multihop":false,"peer":"10.0.1.5","vrf":"default","status":"shutdown","diagnostic":"ok"},
{"multihop":false,"peer":"10.0.1.6","vrf":"default","status":"init","diagnostic":"control detection time expired"},
{"multihop":false,"peer":"10.0.1.1","vrf":"red","status":"down","diagnostic":"control detection time expired"},
{"multihop":true,"peer":"2001:db8::1","local":"2001:db8::2","status":"down","diagnostic":"ok"},
{"multihop":false,"peer":"10.0.1.2","vrf":"default","interface":"a","status":"up"}]`
	got, err := decode([]byte(text))
	want := map[netip.Addr]bfd.State{}
	for a, s := range map[string]bfd.State{
		"10.0.1.1": bfd.Up, "10.0.1.2": bfd.Up, "10.0.1.3": bfd.Failed, "10.0.1.4": bfd.Down, "10.0.1.5": bfd.Down, "10.0.1.6": bfd.Down, "2001:db8::1": bfd.Down,
	} {
		want[netip.MustParseAddr(a)] = s
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "%", "{}", `[{"peer": "nobody"}]`} {
		if got, err := decode([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

const config = `Building configuration...

Current configuration:
!
bfd
 profile manycast-10.0.1.2
  receive-interval 50
 exit
 !
 profile manycast-10.0.1.9
 exit
 !
 profile theirs
 exit
 !
 peer 10.0.1.2
  profile manycast-10.0.1.2
 exit
 !
 peer 10.9.9.9 multihop local-address 10.0.1.1
  profile manycast-10.9.9.9-10.0.1.1-multihop
 exit
 !
 peer 10.0.1.5
  profile theirs
 exit
 !
 peer 10.0.1.6
 exit
 !
exit
!
end
`

func TestOurs(t *testing.T) {
	want := map[string][]string{
		"manycast-10.0.1.2": {"peer 10.0.1.2"}, "manycast-10.0.1.9": nil,
		"manycast-10.9.9.9-10.0.1.1-multihop": {"peer 10.9.9.9 multihop local-address 10.0.1.1"},
	}
	if got := ours(config); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

// daemon answers as bfdd does, and keeps what it was told.
func daemon(t *testing.T, answer func(command string) (string, byte)) (path string, told func() []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "bfdd.vty")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	commands := make(chan string, 1000)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadString(0)
					if err != nil {
						return
					}
					line = strings.TrimSuffix(line, "\x00")
					commands <- line
					text, status := answer(line)
					if _, err := c.Write(append([]byte(text), 0, 0, 0, status)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return path, func() (all []string) {
		for {
			select {
			case c := <-commands:
				all = append(all, c)
			default:
				return all
			}
		}
	}
}

// TestApply: one session goes on, one is new, those that are not wanted go; what others have stays.
func TestApply(t *testing.T) {
	path, told := daemon(t, func(command string) (string, byte) {
		if command == "show running-config" {
			return config, 0
		}
		return "", 0
	})
	c := New(path)
	ms := time.Millisecond
	err := c.Apply(t.Context(), []bfd.Session{
		{Peer: netip.MustParseAddr("10.0.1.2"), Transmit: 50 * ms, Receive: 60 * ms, Multiplier: 4},
		{Peer: netip.MustParseAddr("2001:db8::2"), Local: netip.MustParseAddr("2001:db8::1"), Multihop: true, Transmit: 300 * ms, Receive: 300 * ms, Multiplier: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"enable", "show running-config", "configure terminal", "bfd",
		"profile manycast-10.0.1.2", "transmit-interval 50", "receive-interval 60", "detect-multiplier 4", "exit", "peer 10.0.1.2", "profile manycast-10.0.1.2", "exit",
		"profile manycast-2001:db8::2-2001:db8::1-multihop", "transmit-interval 300", "receive-interval 300", "detect-multiplier 3", "exit",
		"peer 2001:db8::2 multihop local-address 2001:db8::1", "profile manycast-2001:db8::2-2001:db8::1-multihop", "exit",
		"no profile manycast-10.0.1.9",
		"no peer 10.9.9.9 multihop local-address 10.0.1.1", "no profile manycast-10.9.9.9-10.0.1.1-multihop", "end",
	}
	if got := told(); !reflect.DeepEqual(got, want) {
		t.Errorf("told\n%q\nwant\n%q", got, want)
	}
}

// TestRefused: what bfdd does not understand is an error that says what, and the next commands go by a connection of its own.
func TestRefused(t *testing.T) {
	path, told := daemon(t, func(command string) (string, byte) {
		if strings.HasPrefix(command, "profile") {
			return "% Unknown command: " + command, 2
		}
		return "", 0
	})
	c := New(path)
	err := c.Apply(t.Context(), []bfd.Session{{Peer: netip.MustParseAddr("10.0.1.2")}})
	if err == nil || !strings.Contains(err.Error(), "% Unknown command: profile manycast-10.0.1.2") {
		t.Errorf("%v", err)
	}
	told()
	if _, err := c.do(t.Context(), "show version"); err != nil {
		t.Error(err)
	}
	if got := told(); !reflect.DeepEqual(got, []string{"enable", "show version"}) {
		t.Errorf("told %q", got)
	}
}

// TestSilent: a daemon that does not answer holds up nobody for longer than asked.
func TestSilent(t *testing.T) {
	path, _ := daemon(t, func(command string) (string, byte) {
		if command != "enable" {
			select {}
		}
		return "", 0
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if states, err := New(path).States(ctx); err == nil {
		t.Error(states)
	}
	if _, err := New(filepath.Join(t.TempDir(), "none")).States(t.Context()); err == nil || !strings.Contains(err.Error(), "does it run") {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("[]\x00\x00\x00\x00"))
	f.Add([]byte(`[{"peer":"10.0.1.2","status":"up"}]` + "\x00\x00\x00\x01"))
	f.Add([]byte("\x00\x00\x01\x00"))
	f.Add([]byte("[{"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		text, status, err := read(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			return
		}
		if again, s, err := read(bufio.NewReader(io.MultiReader(bytes.NewReader(text), bytes.NewReader([]byte{0, 0, 0, status})))); err != nil || s != status || !bytes.Equal(again, text) {
			t.Errorf("%q %d: %q %d %v", text, status, again, s, err)
		}
		_, _ = decode(text)
		ours(string(text))
	})
}
