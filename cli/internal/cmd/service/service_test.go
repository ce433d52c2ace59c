package service_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

func create(b *cmdtest.Bus, name, vip, group string, more ...string) cmdtest.Result {
	return b.Run(append([]string{"service", "create", name, "--vip", vip, "--group", group, "--port", "tcp/80"}, more...)...)
}

func TestCreate(t *testing.T) {
	b := cmdtest.Start(t)
	r := create(b, "web", "192.0.2.80", "239.80.80.80", "--port", "udp/53,tcp/443", "--policy", "weighted", "--slots", "prefix/4")
	if r.Error != nil {
		t.Fatal(r.Error)
	}
	var p servicev1.Service
	if !b.Get(bus.BucketServices, "web", &p) {
		t.Fatal("web is not on the bus")
	}
	spec, err := service.FromProto(&p)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Policy != alloc.Weighted || spec.Slots.String() != "prefix/4" || len(spec.Ports) != 3 || spec.Mode != service.Multicast || !reflect.DeepEqual(spec.Handover, service.DefaultHandover()) {
		t.Fatalf("%+v", spec)
	}
	for _, bad := range map[string]struct {
		args []string
		want string
	}{
		"there already": {[]string{"web", "--vip", "192.0.2.81", "--group", "239.1.1.1", "--port", "tcp/80"}, "exists already"},
		"same group":    {[]string{"api", "--vip", "192.0.2.81", "--group", "239.80.80.80", "--port", "tcp/80"}, "same group"},
		"same frontend": {[]string{"api", "--vip", "192.0.2.80", "--group", "239.1.1.1", "--port", "tcp/443"}, "both have vip"},
		"unicast group": {[]string{"api", "--vip", "192.0.2.81", "--group", "10.1.1.1", "--port", "tcp/80"}, "239.0.0.0/8"},
		"public group":  {[]string{"api", "--vip", "192.0.2.81", "--group", "224.1.1.1", "--port", "tcp/80"}, "public"},
		"bad vip":       {[]string{"api", "--vip", "192.0.2", "--group", "239.1.1.1", "--port", "tcp/80"}, "--vip"},
		"bad port":      {[]string{"api", "--vip", "192.0.2.81", "--group", "239.1.1.1", "--port", "80"}, "tcp/80"},
		"bad slots":     {[]string{"api", "--vip", "192.0.2.81", "--group", "239.1.1.1", "--port", "tcp/80", "--slots", "suffix/40"}, "1 to 16"},
		"bad policy":    {[]string{"api", "--vip", "192.0.2.81", "--group", "239.1.1.1", "--port", "tcp/80", "--policy", "fair"}, "want equal, weighted, load"},
		"bad name":      {[]string{"A_b", "--vip", "192.0.2.81", "--group", "239.1.1.1", "--port", "tcp/80"}, "lower-case"},
		"no vip":        {[]string{"api", "--group", "239.1.1.1", "--port", "tcp/80"}, "vip"},
		"dotted name":   {[]string{"web.s1", "--vip", "192.0.2.81", "--group", "239.1.1.1", "--port", "tcp/80"}, "lower-case"},
	} {
		b.Refused([]string{bad.want}, append([]string{"service", "create"}, bad.args...)...)
	}
	if out := b.OK("service", "list", "-o", "json"); strings.Count(out, `"name"`) != 1 {
		t.Fatalf("a refused service is there:\n%s", out)
	}
}

const three = cmdtest.Web + `---
name: api
vip: 192.0.2.80
group: 239.80.80.81
ports: [tcp/8080]
---
name: dns
vip: 192.0.2.53
group: 239.80.80.53
ports: [udp/53, tcp/53]
`

func apply(t *testing.T, b *cmdtest.Bus, yaml string, more ...string) map[string]string {
	t.Helper()
	r := b.RunWith(yaml, append([]string{"service", "apply", "-f", "-", "-o", "json"}, more...)...)
	if r.Error != nil {
		t.Fatal(r.Error)
	}
	var rows []struct{ Name, Result string }
	if err := json.Unmarshal([]byte(r.Out), &rows); err != nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	for _, row := range rows {
		results[row.Name] = row.Result
	}
	return results
}

func TestApply(t *testing.T) {
	b := cmdtest.Start(t)
	want := func(got map[string]string, web, api, dns string) {
		t.Helper()
		if got["web"] != web || got["api"] != api || got["dns"] != dns {
			t.Fatalf("%v, want %s %s %s", got, web, api, dns)
		}
	}
	want(apply(t, b, three, "--dry-run"), "created", "created", "created")
	want(apply(t, b, three), "created", "created", "created") // the dry run wrote nothing
	want(apply(t, b, strings.Replace(three, "weighted", "equal", 1)), "changed", "unchanged", "unchanged")

	file := filepath.Join(t.TempDir(), "dns.yaml")
	if err := os.WriteFile(file, []byte(b.OK("service", "show", "dns", "-o", "yaml")), 0o644); err != nil {
		t.Fatal(err)
	}
	cmdtest.Golden(t, "apply", b.OK("service", "apply", "-f", file)) // what show writes apply takes
	if out := b.OK("service", "list", "-o", "json"); strings.Count(out, `"name"`) != 3 {
		t.Fatalf("a service that was not in the file is gone:\n%s", out)
	}
}

// TestApplyWarnsOfJoinsThatNobodyTakes, by who is there, or while nobody is by who could be; it is written all the same.
func TestApplyWarnsOfJoinsThatNobodyTakes(t *testing.T) {
	b := cmdtest.Start(t)
	fine := "name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\nslots: suffix/14\n"
	large := strings.Replace(fine, "suffix/14", "suffix/16", 1)
	warns := func(yaml, want string, args ...string) {
		t.Helper()
		r := b.RunWith(yaml, append([]string{"service", "apply", "-f", "-"}, args...)...)
		if r.Error != nil || want == "" && r.Err != "" || !strings.Contains(r.Err, want) {
			t.Errorf("%v, warned %q, want %q", r.Error, r.Err, want)
		}
	}
	warns(fine, "")
	warns(large, "manycast: warning: service web: no server is there yet, but few would have joins of too many portions: with 65536 slots one of 6 servers needs", "--dry-run")
	for i := range 5 {
		b.Register("web", fmt.Sprintf("s%d", i+1), fmt.Sprintf("10.0.%d.1", i+1), 1, true)
	}
	warns(large, "with 65536 slots s1 needs", "--dry-run")
	warns(fine, "")
	warns(large, "have slots: suffix/15, or more servers")
	for i := range 10 {
		b.Register("web", fmt.Sprintf("s%d", i+1), fmt.Sprintf("10.0.%d.1", i+1), 1, true)
	}
	warns(large, "")
	if r := create(b, "api", "192.0.2.81", "239.80.80.81", "--slots", "suffix/16"); r.Error != nil || !strings.Contains(r.Err, "service api: no server is there yet") {
		t.Errorf("%v, %s", r.Error, r.Err)
	}
}

func TestApplyWritesAllOrNothing(t *testing.T) {
	b := cmdtest.Start(t)
	b.Service(cmdtest.Web)
	good := "name: api\nvip: 192.0.2.81\ngroup: 239.1.1.1\nports: [tcp/80]\n"
	for name, bad := range map[string]struct{ yaml, want string }{
		"group of one on the bus":    {good + "---\nname: x\nvip: 192.0.2.82\ngroup: 239.80.80.80\nports: [tcp/80]\n", "same group"},
		"frontend of one on the bus": {good + "---\nname: x\nvip: 192.0.2.80\ngroup: 239.1.1.2\nports: [tcp/80]\n", "both have vip"},
		"twice in the file":          {good + "---\n" + good, "twice"},
		"unknown key":                {good + "colour: red\n", "colour"},
		"no YAML":                    {"{", "standard input"},
		"nothing":                    {"", "no service"},
		"overlapping portions":       {good + "servers:\n- {name: s1, address: 10.0.0.1, portions: [0.0.0.0/0]}\n- {name: s2, address: 10.0.0.2, portions: [10.0.0.0/8]}\n", "portions"},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.RunWith(bad.yaml, "service", "apply", "-f", "-")
			if r.Error == nil || !strings.Contains(r.Error.Error(), bad.want) {
				t.Fatalf("%v, want %q", r.Error, bad.want)
			}
			if b.Get(bus.BucketServices, "api", &servicev1.Service{}) {
				t.Fatal("half of it was written")
			}
		})
	}
	b.Refused([]string{"/nonexistent"}, "service", "apply", "-f", "/nonexistent")
}

func TestListAndShow(t *testing.T) {
	b := cmdtest.Start(t)
	a := cmdtest.World(b)
	b.Service("name: api\nvip: 192.0.2.80\ngroup: 239.80.80.81\nports: [tcp/8080]\n---\n" +
		"name: fixed\nvip: 192.0.2.90\ngroup: 239.80.80.90\nports: [udp/53]\nservers:\n" +
		"- {name: s1, address: 10.0.1.1, portions: [0.0.0.0/0.0.0.1]}\n- {name: s2, address: 10.0.2.1, portions: [0.0.0.1/0.0.0.1]}\n")
	b.Register("web", "s3", "10.0.3.1", 1, false)
	b.Put(bus.BucketOperator, "web.s2", &allocv1.Operator{Drained: true})
	b.Put(bus.BucketPins, "web.s2", &handoverv1.Pins{Users: []uint32{0x0a010002, 0x0a010004}, Over: 1, Apart: 2})
	b.Allocate("web", a, b.Next(a, 2, cmdtest.Alive("s1", 2)))
	cmdtest.Golden(t, "list", b.OK("service", "list"))
	cmdtest.Golden(t, "show", b.OK("service", "show", "web"))
	cmdtest.Golden(t, "show-none", b.OK("service", "show", "api"))
	cmdtest.Golden(t, "show-static", b.OK("service", "show", "fixed"))
	cmdtest.Golden(t, "show-yaml", b.OK("service", "show", "fixed", "-o", "yaml"))
	b.Refused([]string{`service "wbe" is not there`, "api, fixed, web"}, "service", "show", "wbe")
}

func TestDelete(t *testing.T) {
	b := cmdtest.Start(t)
	b.Refused([]string{"manycast service create"}, "service", "delete", "web")
	cmdtest.World(b)
	b.Put(bus.BucketOperator, "web.s2", &allocv1.Operator{Drained: true})
	b.OK("service", "delete", "web")
	if b.Get(bus.BucketServices, "web", &servicev1.Service{}) || b.Get(bus.BucketOperator, "web.s2", &allocv1.Operator{}) {
		t.Fatal("something of it is left")
	}
	if !b.Get(bus.BucketAllocations, "web", &allocv1.State{}) {
		t.Fatal("the epochs are forgotten: routers would refuse the joins of a service of the same name")
	}
	b.Refused([]string{"not there"}, "service", "delete", "web")
}

func TestDamagedServiceIsToldAndCanBeDeleted(t *testing.T) {
	b := cmdtest.Start(t)
	b.Service(cmdtest.Web)
	b.PutRaw(bus.BucketServices, "bad", []byte("\xff\xff"))
	r := b.Run("service", "list")
	if r.Error != nil || !strings.Contains(r.Err, "services/bad on the bus cannot be used") || !strings.Contains(r.Out, "web") {
		t.Fatalf("%v\n%s%s", r.Error, r.Out, r.Err)
	}
	b.OK("service", "delete", "bad")
	if r := b.Run("service", "list"); r.Err != "" {
		t.Fatal(r.Err)
	}
}

func TestAgentsCredentialsAreNotEnough(t *testing.T) {
	b := cmdtest.Start(t)
	r := cmdtest.Run(t, "", "service", "list", "--bus", b.URL(), "--credentials", strings.Replace(b.Credentials(), "admin", "igmpd", 1), "--timeout", "1s")
	if r.Error == nil || !strings.Contains(r.Error.Error(), "not an operator's credentials") {
		t.Fatal(r.Error)
	}
}

func TestBusAway(t *testing.T) {
	creds := filepath.Join(t.TempDir(), "none.nk")
	r := cmdtest.Run(t, "", "service", "list", "--bus", "nats://127.0.0.1:1", "--credentials", creds)
	if r.Error == nil || !strings.Contains(r.Error.Error(), "--credentials") {
		t.Fatal(r.Error)
	}
}
