package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/daemon"
)

// The reference files have every key with its default, but for what has none, and pass --check as they are.
func TestReferenceFiles(t *testing.T) {
	d, err := LoadDirector("../../director.toml")
	if err != nil {
		t.Error(err)
	}
	wantD := DefaultDirector()
	wantD.Name, wantD.Interfaces, wantD.Bus, wantD.Tags.Routers = d.Name, []string{"users"}, loopback("director"), []string{}
	if !reflect.DeepEqual(d, wantD) {
		t.Errorf("director.toml says\n%+v\nthe defaults are\n%+v", d, wantD)
	}
	a, err := LoadAgent("../../agent.toml")
	if err != nil {
		t.Error(err)
	}
	wantA := DefaultAgent()
	wantA.Name, wantA.Interface, wantA.Serve, wantA.Bus = a.Name, "eth0", []string{"web"}, loopback("agent")
	if !reflect.DeepEqual(a, wantA) {
		t.Errorf("agent.toml says\n%+v\nthe defaults are\n%+v", a, wantA)
	}
}

func TestReferenceRelay(t *testing.T) {
	r, err := LoadRelay("../../relay.toml")
	if err != nil {
		t.Error(err)
	}
	want := DefaultRelay()
	want.Listens = r.Listens
	if !reflect.DeepEqual(r, want) || len(r.Listens) != 1 {
		t.Errorf("relay.toml says\n%+v\nthe defaults are\n%+v", r, want)
	}
}

func TestReferenceClient(t *testing.T) {
	c, err := LoadClient("../../client.toml", asItIs)
	if err != nil {
		t.Error(err)
	}
	want := DefaultClient()
	want.Interfaces, want.Keys.Pinned, want.Keys.Servers, want.Services = []string{"eth0"}, []string{"/etc/manycast/keys"}, []string{}, c.Services
	if !reflect.DeepEqual(c, want) || len(c.Services) != 1 {
		t.Errorf("client.toml says\n%+v\nthe defaults are\n%+v", c, want)
	}
}

func asItIs(*Client) {}

func TestClientCheck(t *testing.T) {
	const service = "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.80:80\", \"[2001:db8::80]:80\"]\n"
	const good = "interfaces = [\"eth0\"]\nkeys.pinned = [\"/etc/manycast/keys\"]\n" + service
	for name, test := range map[string]struct{ text, want string }{
		"good":              {good, ""},
		"no interface":      {strings.Replace(good, "\"eth0\"", "", 1), "no interfaces"},
		"cgroup":            {"cgroup = \"user.slice\"\n" + good, "cgroup \"user.slice\""},
		"port":              {"port = 8467\n" + good, "port"}, // servers know of one alone
		"relative socket":   {"socket = \"a.sock\"\n" + good, "socket"},
		"no keys":           {"interfaces = [\"eth0\"]\n" + service, "neither keys.pinned nor keys.servers"},
		"whoever's keys":    {"keys.servers = [\"192.0.2.53:53\"]\n" + good, "authenticated answers only"},
		"no service":        {strings.TrimSuffix(good, service), "no [[service]]"},
		"no port":           {strings.Replace(good, "0.2.80:80", "0.2.80:0", 1), "192.0.2.80:0"},
		"twice":             {good + service, "there twice"},
		"name":              {strings.Replace(good, "web", "Web", 1), "Web"},
		"past":              {"limits.past = \"0s\"\n" + good, "limits.past"},
		"future":            {"limits.future = \"48h\"\n" + good, "limits.future"},
		"signatures":        {"limits.signatures_all = 0\n" + good, "limits.signatures_all"},
		"unknown key":       {"colour = 1\n" + good, "colour"},
		"unknown key below": {good + "colour = 1\n", "service.colour"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "client.toml")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadClient(file, asItIs)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// loopback is the bus that `manycast bus` starts on this machine.
func loopback(role string) daemon.BusSection {
	return daemon.BusSection{URLs: []string{"nats://127.0.0.1:4222"}, Credentials: "/var/lib/manycast/bus/creds/" + role + ".nk"}
}

func TestAgentCheck(t *testing.T) {
	const good = "name = \"s1\"\ninterface = \"eth0\"\nservices = \"/etc/manycast/services.yaml\"\n"
	for name, test := range map[string]struct{ text, want string }{
		"good":               {good, ""},
		"no interface":       {strings.Replace(good, "eth0", "", 1), "no interface"},
		"neither of both":    {"name = \"s1\"\ninterface = \"eth0\"\nserve = [\"web\"]\n", "bus.urls"},
		"nothing to serve":   {"name = \"s1\"\ninterface = \"eth0\"\n[bus]\nurls = [\"nats://127.0.0.1:4222\"]\ncredentials = \"a.nk\"\n", "no serve"},
		"no credentials":     {good + "[bus]\nurls = [\"nats://127.0.0.1:4222\"]\n", "bus.credentials"},
		"address":            {good + "address = \"10.0.0\"\n", "10.0.0"},
		"address6":           {good + "address6 = \"10.0.0.1\"\n", "10.0.0.1"},
		"address6 of a link": {good + "address6 = \"fe80::1\"\n", "fe80::1"},
		"weight":             {good + "weight = -1\n", "weight -1"},
		"settle":             {good + "settle = \"2s\"\n", "settle"},
		"hold":               {good + "hold = \"0s\"\n", "hold"},
		"mtu":                {good + "path_mtu = 100\n", "path_mtu"},
		"health":             {good + "[health]\ntype = \"smoke\"\n", "smoke"},
		"load's interval":    {good + "[load]\ninterval = \"1ms\"\n", "load.interval"},
		"load's timeout":     {good + "[load]\ntimeout = \"0s\"\n", "load.timeout"},
		"load's expiry":      {good + "[load]\ninterval = \"5s\"\nexpires = \"2s\"\n", "load.expires"},
		"load's source":      {good + "[load]\napplication = \"load.txt\"\n", "load.application"},
		"load's scheme":      {good + "[load]\napplication = \"https://app/load\"\n", "load.application"},
		"unknown key":        {good + "colour = 1\n", "colour"},
		"name of a host":     {strings.Replace(good, "s1", "s1.example.org", 1), "s1.example.org"},
		"relative state":     {good + "state_dir = \"state\"\n", "absolute"},
		"robustness":         {good + "[join]\nrobustness = 0\n", "robustness"},
		"service's name":     {good + "serve = [\"Web\"]\n", "Web"},
		"leads alone":        {good + "[leader]\nenabled = true\n", "leader.enabled without bus.urls"},
		"impatient leader":   {good + "[leader]\nenabled = true\ndead_after = \"1ms\"\n", "leader.dead_after"},
		"no keys directory":  {good + "[keys]\ndir = \"\"\n", "keys.dir"},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, test.text, test.want, func(p string) error { _, err := LoadAgent(p); return err })
		})
	}
}

func TestDirectorCheck(t *testing.T) {
	const good = "name = \"d1\"\ninterfaces = [\"users\"]\nservices = \"/etc/manycast/services.yaml\"\n"
	for name, test := range map[string]struct{ text, want string }{
		"good":                  {good, ""},
		"no interfaces":         {strings.Replace(good, `"users"`, "", 1), "neither interfaces nor tags.routers"},
		"routers without a bus": {strings.Replace(good, `"users"`, "", 1) + "[tags]\nrouters = [\"r1\", \"r1\", \"\"]\nlifetime = \"1s\"\n", "tags.routers without bus.urls"},
		"fragments":             {good + "fragments_max = 0\n", "fragments_max"},
		"dead_after":            {good + "[leader]\ndead_after = \"100ms\"\n", "dead_after"},
		"not TOML":              {"name = \n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, test.text, test.want, func(p string) error { _, err := LoadDirector(p); return err })
		})
	}
}

func TestRelayCheck(t *testing.T) {
	const listen = "[[listen]]\nname = \"web\"\naddresses = [\"192.0.2.80:80\"]\nbackend = \"127.0.0.1:8080\"\nuser = \"none\"\n"
	for name, test := range map[string]struct{ text, want string }{
		"good":             {listen, ""},
		"nothing":          {"", "[[listen]]"},
		"no connections":   {"connections_max = 0\n" + listen, "connections_max"},
		"timeout":          {"connect_timeout = \"0s\"\n" + listen, "connect_timeout"},
		"kernel's table":   {"table = 254\n" + listen, "table 254"},
		"agent":            {"agent = \"agent.sock\"\n" + listen, "absolute"},
		"address twice":    {listen + listen, "there twice"},
		"address's port":   {strings.Replace(listen, ":80\"", "\"", 1), "line 3"},
		"user":             {strings.Replace(listen, "none", "known", 1), "known"},
		"unknown key":      {listen + "colour = 1\n", "colour"},
		"versions of IP":   {strings.NewReplacer("127.0.0.1", "[::1]", "none", "transparent").Replace(listen), "IP version"},
		"backend is relay": {strings.Replace(listen, "127.0.0.1:8080", "192.0.2.80:80", 1), "own address"},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, test.text, test.want, func(p string) error { _, err := LoadRelay(p); return err })
		})
	}
}

func check(t *testing.T, text, want string, load func(string) error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lbd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	err := load(path)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want %q in it", err, want)
	}
}
