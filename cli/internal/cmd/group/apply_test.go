package group

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/record"
)

const groups = `
name: web.cast.example
owner: ops@example.com
private: true
address: 239.1.2.3
sessions: [Mon-Fri 08:00-18:00 UTC]
members: [s1, s2]
---
name: talk.cast.example
owner: ops@example.com
private: true
for: 2h
members: [s1]
---
name: radio.cast.example
owner: ops@example.com
private: false
address: 224.2.200.1
`

type outcome struct{ Name, Address, Result string }

// apply is `group apply -f -`.
func (b *bench) apply(yaml string, more ...string) map[string]outcome {
	b.t.Helper()
	out, _, err := b.runWith(yaml, "json", append([]string{"apply", "-f", "-"}, more...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	var rows []outcome
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	results := map[string]outcome{}
	for _, r := range rows {
		results[strings.TrimSuffix(r.Name, ".cast.example.")] = r
	}
	return results
}

func (b *bench) applied(want string, got map[string]outcome, names ...string) {
	b.t.Helper()
	if len(got) != len(names) {
		b.t.Errorf("%+v", got)
	}
	for _, name := range names {
		if got[name].Result != want {
			b.t.Errorf("%s: %+v, want %s", name, got[name], want)
		}
	}
}

func TestApply(t *testing.T) {
	b := newBench(t)
	s1, s2 := b.member("s1"), b.member("s2")
	b.applied(created, b.apply(groups, "--dry-run"), "web", "talk", "radio")
	got := b.apply(groups) // the dry run made nothing
	b.applied(created, got, "web", "talk", "radio")
	if a := netip.MustParseAddr(got["talk"].Address); got["web"].Address != "239.1.2.3" || !temporaryPrivate.Contains(a) {
		t.Errorf("%+v", got)
	}
	web := b.must("show", "web.cast.example")
	b.receive(s1, web.Address, t.TempDir())
	if g := b.receive(s2, web.Address, t.TempDir()); g.Public().String() != web.Keys[0].ID+" ed25519 "+web.Keys[0].Public {
		t.Error("s2 got another key than the one published")
	}
	talk := b.must("show", "talk.cast.example")
	b.applied(unchanged, b.apply(groups), "web", "talk", "radio")
	if again := b.must("show", "talk.cast.example"); !again.Until.Equal(*talk.Until) {
		t.Errorf("for counts from %v again: %v", talk.Until, again.Until)
	}

	edited := strings.NewReplacer("Mon-Fri", "Mon-Sat", "radio.cast.example\nowner: ops", "radio.cast.example\nowner: noc").Replace(groups)
	got = b.apply(edited, "--dry-run")
	for range 2 { // the dry run changed nothing
		if got["web"].Result != changed || got["radio"].Result != changed || got["talk"].Result != unchanged {
			t.Errorf("%+v", got)
		}
		got = b.apply(edited)
	}
	after := b.must("show", "239.1.2.3")
	if after.Sessions[0] != "Mon-Sat 08:00-18:00 UTC" || after.Keys[0] != web.Keys[0] || b.must("show", "radio.cast.example").Owner != "noc@example.com" {
		t.Errorf("%+v", after)
	}
	out, _, err := b.runWith(edited, "table", "apply", "-f", "-")
	if err != nil || !strings.Contains(out, "web.cast.example.") || strings.Count(out, "unchanged") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

// What show and export write apply takes; what is edited in it changes; what is lost comes back from it.
func TestApplyTakesWhatIsShown(t *testing.T) {
	b := newBench(t)
	b.member("s1")
	b.member("s2")
	b.apply(groups)
	names := []string{"web.cast.example", "talk.cast.example", "radio.cast.example"}
	exported, err := b.run(append([]string{"export"}, names...)...)
	if err != nil {
		t.Fatal(err)
	}
	b.applied(unchanged, b.apply(exported), "web", "talk", "radio")
	for _, name := range names {
		shown, _, err := b.runWith("", "yaml", "show", name)
		if err != nil {
			t.Fatal(err)
		}
		short := strings.TrimSuffix(name, ".cast.example")
		b.applied(unchanged, b.apply(shown), short)
		b.applied(changed, b.apply(strings.Replace(shown, "ops@", "noc@", 1)), short)
	}
	b.applied(changed, b.apply(exported), "web", "talk", "radio") // back again

	before := b.must("show", "web.cast.example")
	b.must("delete", "web.cast.example")
	b.applied(created, b.apply(strings.SplitAfter(exported, "---\n")[0]), "web")
	if after := b.must("show", "239.1.2.3"); after.Keys[0] != before.Keys[0] || after.Owner != before.Owner {
		t.Errorf("%+v, want %+v", after, before)
	}
	// Changed end of a temporary group.
	later := time.Now().Add(5 * time.Hour).UTC().Truncate(time.Second)
	shown, _, err := b.runWith("", "yaml", "show", "talk.cast.example")
	if err != nil {
		t.Fatal(err)
	}
	talk := b.must("show", "talk.cast.example")
	b.applied(changed, b.apply(strings.Replace(shown, talk.Until.Format(time.RFC3339), later.Format(time.RFC3339), 1)), "talk")
	if got := b.must("show", "talk.cast.example"); !got.Until.Equal(later) {
		t.Errorf("until %v, want %v", got.Until, later)
	}
}

func TestApplyMakesNothingWhereSomethingIsWrong(t *testing.T) {
	b := newBench(t)
	b.member("s1")
	b.member("s2")
	b.must("create", "old.cast.example", "--owner", "ops@example.com", "--private", "--address", "239.1.1.1", "--member", "s1")
	const good = "name: new.cast.example\nowner: ops@example.com\nprivate: true\nmembers: [s1]\n---\n"
	const head = "name: x.cast.example\nowner: ops@example.com\n"
	const old = "name: old.cast.example\nowner: ops@example.com\n"
	otherKey := "keys: [" + `{id: "00000000", algorithm: ed25519, public: ` + strings.Repeat("A", 43) + "=}]\n"
	for want, bad := range map[string]string{
		"colour":                            head + "private: true\nmembers: [s1]\ncolour: red\n",
		"private (true or false) is missin": head + "members: [s1]\n",
		"contradict":                        head + "private: true\nflag: public\n",
		"want private or public":            head + "flag: secret\n",
		"exclude each other":                head + "private: true\nmembers: [s1]\nfor: 2h\nuntil: 2050-01-01T00:00:00Z\n",
		"that is over":                      head + "private: true\nmembers: [s1]\nuntil: 2020-01-01T00:00:00Z\n",
		"for \"2\"":                         head + "private: true\nmembers: [s1]\nfor: 2\n",
		"a second or more":                  head + "private: true\nmembers: [s1]\nfor: -2h\n",
		"name is missing":                   "owner: ops@example.com\nprivate: true\n",
		"want a mail address":               "name: x.cast.example\nprivate: true\nmembers: [s1]\n",
		"session":                           head + "private: true\nmembers: [s1]\nsessions: [always]\n",
		"public part":                       head + "private: true\nmembers: [s1]\naddress: 224.2.1.1\n",
		"members is missing":                head + "private: true\n",
		"manycast key create member":        head + "private: true\nmembers: [s9]\n",
		"239.1.1.1 is old.cast.example.'s":  head + "private: true\nmembers: [s1]\naddress: 239.1.1.1\n",
		"new.cast.example. is there twice":  strings.TrimSuffix(good, "---\n"),
		"address 239.7.7.7 is there twice": head + "private: true\nmembers: [s1]\naddress: 239.7.7.7\n---\n" +
			"name: y.cast.example\nowner: ops@example.com\nprivate: true\nmembers: [s1]\naddress: 239.7.7.7\n",
		"its address is 239.1.1.1":           old + "private: true\naddress: 239.1.1.2\n",
		"private and public do not":          old + "private: false\n",
		"permanent and temporary":            old + "private: true\nfor: 2h\n",
		"group roll old.cast.example. --mem": old + "private: true\nmembers: [s1, s2]\n",
		"00000000":                           old + "private: true\naddress: 239.1.1.1\n" + otherKey,
		"address is missing":                 head + "private: true\n" + otherKey,
		"[[zone]]":                           "name: x.elsewhere.example\nowner: ops@example.com\nprivate: true\nmembers: [s1]\n",
		"document 2":                         "{",
	} {
		t.Run(want, func(t *testing.T) {
			out, _, err := b.runWith(good+bad, "json", "apply", "-f", "-")
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v\n%s", err, out)
			}
			if _, err := b.run("show", "new.cast.example"); !errors.Is(err, record.ErrNone) {
				t.Fatalf("half of it was made: %v", err)
			}
		})
	}
	for _, args := range [][]string{{"-f", "/nonexistent"}, {"-f", "-"}, {}} {
		if _, _, err := b.runWith("", "json", append([]string{"apply"}, args...)...); err == nil {
			t.Errorf("apply %v: no error", args)
		}
	}
}

func TestApplyFileAndFormerMember(t *testing.T) {
	b := newBench(t)
	b.member("s1")
	b.member("s2")
	file := filepath.Join(t.TempDir(), "groups.yaml")
	if err := os.WriteFile(file, []byte(groups), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run("apply", "-f", file); err != nil {
		t.Fatal(err)
	}
	_, warned, err := b.runWith(strings.Replace(groups, "[s1, s2]", "[s1]", 1), "json", "apply", "-f", "-")
	if err != nil || !strings.Contains(warned, "s2 has its key") {
		t.Errorf("%q, %v", warned, err)
	}
}
