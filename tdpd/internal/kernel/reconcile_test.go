package kernel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// memory is tables in memory; others' entries are in the way.
type memory struct {
	ours   map[id][]Hop
	others map[id]bool
	log    []string
	broken error
}

func (m *memory) read() (map[id][]Hop, []uint32, error) { return maps.Clone(m.ours), nil, nil }

func (m *memory) apply(changes []change) (map[int]error, error) {
	failed := map[int]error{}
	for n, c := range changes {
		m.log = append(m.log, fmt.Sprint([]string{"add ", "replace ", "remove "}[c.verb], c.id))
		switch {
		case m.others[c.id]:
			failed[n] = errors.New("somebody else's")
		case c.verb == remove:
			delete(m.ours, c.id)
		default:
			m.ours[c.id] = c.hops
		}
	}
	return failed, m.broken
}

func hop(via string, labels ...uint32) Hop {
	return Hop{Labels: labels, Via: netip.MustParseAddr(via), Interface: 2}
}

func compiled(t *testing.T, s State) map[id][]Hop {
	t.Helper()
	c := newCompiler(1000, 0)
	c.state(s)
	if c.failures != nil {
		t.Fatal(c.failures)
	}
	return c.want
}

func TestSetMakesTheDifference(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.0/24")
	m := &memory{ours: map[id][]Hop{labelID(9999): {hop("10.0.0.1")}}, others: map[id]bool{labelID(50): true}}
	r := reconciler{tables: m}
	first := State{
		Labels:   map[uint32][]Hop{16: {hop("10.0.0.1", 20)}, 50: {hop("10.0.0.1")}},
		Prefixes: map[netip.Prefix][]Hop{p: {hop("10.0.0.2", 30), hop("10.0.0.1", 30)}},
	}
	failures, err := r.set(compiled(t, first), nil)
	if err != nil || len(failures) != 1 || failures[0].Entry != "label 50" {
		t.Errorf("%v, %v: want that label 50 is somebody else's", failures, err)
	}
	if got := strings.Join(m.log, ","); !strings.HasSuffix(got, ",add prefix 192.0.2.0/24,remove label 9999") || len(m.log) != 4 {
		t.Errorf("changes: %s; want labels, then prefixes, then what goes", got)
	}
	delete(first.Labels, 50)
	first.Prefixes[p] = []Hop{hop("10.0.0.1", 30), hop("10.0.0.2", 30), hop("10.0.0.2", 30)} // the same
	m.log = nil
	if !r.used.has(2) || r.used.has(3) {
		t.Error("entries lead to interface 2 alone")
	}
	if failures, err := r.set(compiled(t, first), nil); err != nil || failures != nil || m.log != nil {
		t.Errorf("the same again: %v, %v, changes %v", failures, err, m.log)
	}
	failures, err = r.update(compiled(t, State{Labels: map[uint32][]Hop{16: {hop("10.0.0.1", 21)}}}), []id{prefixID(p), labelID(77)})
	if want := "replace label 16,remove prefix 192.0.2.0/24"; err != nil || failures != nil || strings.Join(m.log, ",") != want {
		t.Errorf("update: %v, %v, changes %v; want %s", failures, err, m.log, want)
	}
}

func TestAfterBreakageTheTablesAreReadAgain(t *testing.T) {
	m := &memory{ours: map[id][]Hop{}, broken: errors.New("no buffer space")}
	r := reconciler{tables: m}
	want := compiled(t, State{Labels: map[uint32][]Hop{16: {hop("10.0.0.1")}}})
	if _, err := r.set(want, nil); err == nil {
		t.Fatal("breakage is not told")
	}
	m.ours, m.broken, m.log = map[id][]Hop{}, nil, nil
	if _, err := r.set(want, nil); err != nil || len(m.log) != 1 {
		t.Errorf("%v, changes %v: want the label added again", err, m.log)
	}
}

func TestWhatIsWrongStaysAsItIs(t *testing.T) {
	m := &memory{ours: map[id][]Hop{labelID(16): {hop("10.0.0.1")}}}
	r := reconciler{tables: m}
	c := newCompiler(1000, 0)
	c.state(State{Labels: map[uint32][]Hop{16: {hop("10.0.0.1", 3)}}})
	if _, err := r.set(c.want, c.wrong); err != nil || len(m.ours) != 1 {
		t.Errorf("%v, left: %v", err, m.ours)
	}
}

func TestWrongEntriesAreNamed(t *testing.T) {
	lo := Hop{Interface: 1}
	for _, test := range []struct {
		state State
		want  string
	}{
		{State{Labels: map[uint32][]Hop{15: {hop("10.0.0.1")}}}, "label 15: is not from 16"},
		{State{Labels: map[uint32][]Hop{1000: {hop("10.0.0.1")}}}, "label 1000: beyond net.mpls.platform_labels, which is 1000"},
		{State{Labels: map[uint32][]Hop{1 << 20: {hop("10.0.0.1")}}}, "label 1048576: is not from"},
		{State{Labels: map[uint32][]Hop{16: {}}}, "label 16: has no next hop"},
		{State{Labels: map[uint32][]Hop{16: {hop("10.0.0.1", 3)}}}, "label 3 cannot be pushed"},
		{State{Labels: map[uint32][]Hop{16: {hop("10.0.0.1", 1<<20)}}}, "label 1048576 cannot be pushed"},
		{State{Labels: map[uint32][]Hop{16: {hop("10.0.0.1", make([]uint32, 31)...)}}}, "31 labels"},
		{State{Labels: map[uint32][]Hop{16: {hop("::ffff:10.0.0.1")}}}, "IPv6 form"},
		{State{Labels: map[uint32][]Hop{16: {{Via: netip.MustParseAddr("10.0.0.1")}}}}, "no interface"},
		{State{Labels: map[uint32][]Hop{16: {{Labels: []uint32{20}, Interface: 1}}}}, "this host itself"},
		{State{Prefixes: map[netip.Prefix][]Hop{netip.MustParsePrefix("10.0.0.1/8"): {hop("10.0.0.1", 20)}}}, "10.0.0.0/8 is"},
		{State{Prefixes: map[netip.Prefix][]Hop{netip.MustParsePrefix("10.0.0.0/8"): {lo}}}, "has no address"},
		{State{Prefixes: map[netip.Prefix][]Hop{netip.MustParsePrefix("2001:db8::/32"): {hop("10.0.0.1", 20)}}}, "no IPv6 routes by IPv4"},
	} {
		c := newCompiler(1000, 0)
		c.state(test.state)
		if err := c.failures.err(); err == nil || !strings.Contains(err.Error(), test.want) || len(c.want) != 0 {
			t.Errorf("%v: %v, want %q", test.state, err, test.want)
		}
	}
	c := newCompiler(1000, 0)
	c.state(State{Labels: map[uint32][]Hop{16: {lo}, 17: {hop("10.0.0.1", 0)}, 18: {hop("fe80::1%eth0", 2)}}})
	if c.failures != nil || len(c.want) != 3 {
		t.Errorf("right entries: %v", c.failures)
	}
}

func TestFailuresNameSome(t *testing.T) {
	var f Failures
	for i := range 12 {
		f = append(f, Failure{fmt.Sprintf("label %d", i), uint32(i), os.ErrPermission})
	}
	if text := f.Error(); !strings.HasSuffix(text, "label 9: permission denied\nand 2 more entries") || !errors.Is(f, os.ErrPermission) {
		t.Error(text)
	}
}

func TestFakeIsABackend(t *testing.T) {
	f := NewFake(State{Labels: map[uint32][]Hop{16: {hop("10.0.0.1")}}})
	f.RefuseLabel(17, os.ErrExist)
	err := f.Set(State{Labels: map[uint32][]Hop{17: {hop("10.0.0.1")}, 18: {hop("10.0.0.1")}}})
	if !errors.Is(err, os.ErrExist) || len(f.State().Labels) != 1 || f.State().Labels[18] == nil {
		t.Errorf("%v, %v", err, f.State())
	}
	if err := f.Update(Changes{Labels: map[uint32][]Hop{18: nil, 19: {hop("10.0.0.1")}}}); err != nil || f.State().Labels[18] != nil || f.State().Labels[19] == nil {
		t.Errorf("%v, %v", err, f.State())
	}
	f.Lose()
	<-f.Changed()
}

// settings makes a tree like mplsDir.
func settings(t *testing.T, values map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, value := range values {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func setting(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestSettingsArePutBackAfterAKill(t *testing.T) {
	dir, file := settings(t, map[string]string{"platform_labels": "20", "conf/a/input": "0", "conf/b/input": "1"}), filepath.Join(t.TempDir(), "former")
	for range 2 { // the first is killed
		s, err := openSysctls(dir, file)
		if err != nil {
			t.Fatal(err)
		}
		if room, err := s.ensure(1000, []string{"a", "b"}); err != nil || room != 1000 {
			t.Fatalf("room %d, %v", room, err)
		}
		if setting(t, dir, "conf/a/input") != "1" {
			t.Error("input of a is not open")
		}
	}
	s, err := openSysctls(dir, file)
	if err == nil {
		err = s.restore(30)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := setting(t, dir, "platform_labels"); got != "30" {
		t.Errorf("platform_labels %s, want 30: somebody has label 29", got)
	}
	if a, b := setting(t, dir, "conf/a/input"), setting(t, dir, "conf/b/input"); a != "0" || b != "1" {
		t.Errorf("inputs of a, b: %s, %s; want them as they were", a, b)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestSettingsArePutBackWithoutAFile(t *testing.T) {
	dir := settings(t, map[string]string{"platform_labels": "20"})
	s, err := openSysctls(dir, "")
	if err == nil {
		_, err = s.ensure(1000, nil)
	}
	if err == nil {
		err = s.restore(0)
	}
	if got := setting(t, dir, "platform_labels"); err != nil || got != "20" {
		t.Errorf("%v, platform_labels %s, want 20", err, got)
	}
}

func TestSettingsOfOthersAreNotLowered(t *testing.T) {
	dir := settings(t, map[string]string{"platform_labels": "5000"})
	s, err := openSysctls(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if room, err := s.ensure(1000, []string{"nosuch"}); room != 5000 || err == nil || !strings.Contains(err.Error(), "interface nosuch: does not exist") {
		t.Errorf("room %d, %v", room, err)
	}
	if err := s.restore(0); err != nil || setting(t, dir, "platform_labels") != "5000" {
		t.Errorf("%v, platform_labels %s", err, setting(t, dir, "platform_labels"))
	}
}

func TestAKernelWithoutMPLSIsNamed(t *testing.T) {
	if _, err := openSysctls(filepath.Join(t.TempDir(), "mpls"), ""); err == nil || !strings.Contains(err.Error(), "load mpls_router and mpls_iptunnel") {
		t.Error(err)
	}
}
