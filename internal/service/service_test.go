package service

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc/policy"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

const web = `
name: web
vip: 192.0.2.80
group: 239.80.80.80
ports: [tcp/80, udp/53]
`

const static = `
name: web
vip: 192.0.2.80
group: 239.80.80.80
ports: [tcp/80]
servers:
  - {name: s1, address: 10.3.0.11, portions: [0.0.0.0/0.0.0.1]}
  - {name: s2, address: 10.4.0.12, weight: 3, portions: [0.0.0.1/0.0.0.3, 0.0.0.3/0.0.0.3]}
`

const denying = `
name: web
vip: 192.0.2.80
group: 239.80.80.80
ports: [tcp/80]
servers:
  - {name: s1, address: 10.3.0.11, portions: [0.0.0.0/0], deny: [10.1.0.12, 10.1.0.14]}
  - {name: s2, address: 10.4.0.12, portions: [10.1.0.12, 10.1.0.14]}
`

const geo = web + `
policy: geo
balance: {interval: 30s, hysteresis: 7%, step: 0.025, range: 2.5, split: 0, shed: 90%}
prefixes:
  - {prefix: 10.0.0.0/8, servers: [s1, s2]}
  - {prefix: 10.9.0.0/16, servers: [s3]}
`

var byAddress = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestDefaults(t *testing.T) {
	got, err := Parse([]byte(web + "---\n" + strings.NewReplacer("web", "dns", "80.80.80", "53.53.53", "tcp/80, udp/53", "tcp/53").Replace(web)))
	if err != nil || len(got) != 2 {
		t.Fatalf("%d services, %v", len(got), err)
	}
	s := got[0]
	if s.Balance != policy.DefaultBalance() {
		t.Errorf("default balance: %+v", s.Balance)
	}
	if s.Mode != Multicast || s.Policy != "equal" || s.Slots.String() != "suffix/8" || !slices.Equal(s.Handover.Strategies, []Strategy{Reset}) || s.Handover.Close != CloseReset || s.Static() {
		t.Errorf("defaults: %+v", s)
	}
}

func TestRoundTrips(t *testing.T) {
	want, err := Parse([]byte(static))
	if err != nil {
		t.Fatal(err)
	}
	if !want[0].Static() || want[0].Servers[0].Weight != 1 || want[0].Servers[1].Weight != 3 {
		t.Fatalf("%+v", want)
	}
	roundTrip(t, want)
}

func TestRulesRoundTrip(t *testing.T) {
	services, err := Parse([]byte(geo))
	if err != nil {
		t.Fatal(err)
	}
	want := policy.Balance{Interval: 30 * time.Second, Hysteresis: 0.07, Step: 0.025, Range: 2.5, Shed: 0.9}
	if r := services[0].Rules(); r.Balance != want || r.Policy != policy.Geo || len(r.Prefixes) != 2 || r.Prefixes[0].Servers[1] != "s2" {
		t.Errorf("%+v", r)
	}
	roundTrip(t, services)
	one := services[0]
	one.Policy, one.Prefixes, one.Balance = policy.Load, nil, policy.DefaultBalance()
	roundTrip(t, []Service{one})
	if text, _ := Marshal(one); !strings.Contains(string(text), "hysteresis: 10%") {
		t.Errorf("a feedback policy shows its knobs; got\n%s", text)
	}
}

func TestDenyLeavesSingleSendersToAnother(t *testing.T) {
	services, err := Parse([]byte(denying))
	if err != nil {
		t.Fatal(err)
	}
	one, two := services[0].Servers[0].Users(), services[0].Servers[1].Users()
	for address, first := range map[string]bool{"10.1.0.12": false, "10.1.0.13": true, "10.1.0.14": false} {
		if a := netip.MustParseAddr(address); one.Contains(a) != first || two.Contains(a) == first {
			t.Errorf("%s: s1 %t, s2 %t", a, one.Contains(a), two.Contains(a))
		}
	}
	roundTrip(t, services)
}

func TestTagsRoundTrip(t *testing.T) {
	services, err := Parse([]byte("name: web\nvip: 192.0.2.80\nmode: tags\nports: [tcp/80]\n---\n" +
		"name: api\nvip: 192.0.2.81\nvip6: 2001:db8::81\ngroup: 239.1.1.1\nmode: tags\nrefuse: drop\nsteering: reactive\nports: [tcp/80]\n"))
	if err != nil {
		t.Fatal(err)
	}
	one, two := services[0], services[1]
	if one.Refuse != RefuseReset || one.Steering != Proactive || one.Group.IsValid() || one.Destination() != one.VIP || len(one.VIPs()) != 1 {
		t.Errorf("%+v", one)
	}
	if two.Refuse != RefuseDrop || two.Steering != Reactive || two.Destination() != two.Group || len(two.VIPs()) != 2 || two.VIPs()[1] != two.VIP6 {
		t.Errorf("%+v", two)
	}
	roundTrip(t, services)
	roundTrip(t, services[1:])
	older := ToProto(one)
	older.Steering = ""
	if s, err := FromProto(older); err != nil || s.Steering != Proactive {
		t.Errorf("of a release without steering: %q, %v", s.Steering, err)
	}
}

const split = "name: web\nvip: 192.0.2.80\nmode: tags\nports: [tcp/80]\nsplit: [203.0.113.7, 2001:db8::/32, 198.51.100.0/24]\n"

func TestSplitRoundTrips(t *testing.T) {
	services, err := Parse([]byte(split))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(services[0].Split); got != "[198.51.100.0/24 203.0.113.7/32 2001:db8::/32]" {
		t.Errorf("%s", got)
	}
	roundTrip(t, services)
}

func roundTrip(t *testing.T, want []Service) {
	t.Helper()
	text, err := Marshal(want...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if d := cmp.Diff(want, got, byAddress); d != "" {
		t.Errorf("YAML: %s", d)
	}
	s, err := FromProto(ToProto(want[0]))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want[0], s, byAddress); d != "" {
		t.Errorf("protobuf: %s", d)
	}
}

func TestRefused(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown mode":        {web + "mode: magic", "want multicast or tags"},
		"refuse of multicast": {web + "refuse: drop", "goes with mode tags"},
		"refuse":              {web + "mode: tags\nrefuse: slowly", "want reset, unreachable or drop"},
		"steering":            {web + "mode: tags\nsteering: lazily", "want proactive or reactive"},
		"steering multicast":  {web + "steering: reactive", "goes with mode tags"},
		"vip6 of multicast":   {web + "vip6: 2001:db8::80", "IPv6 goes with mode tags"},
		"vip6 link-local":     {web + "mode: tags\nvip6: fe80::1", "not an IPv6 address that users can reach"},
		"vip6 IPv4":           {web + "mode: tags\nvip6: 192.0.2.81", "not an IPv6 address"},
		"static tags":         {static + "mode: tags", "takes a leader"},
		"vip of tags shared":  {web + "mode: tags\n---" + replace(replace(web, "name: web", "name: dns"), "239.80.80.80", "239.80.80.81"), "have the same vip 192.0.2.80"},
		"unknown key":         {web + "colour: red", "colour"},
		"not a group":         {replace(web, "239.80.80.80", "10.0.0.1"), "not an IPv4 multicast address"},
		"public group":        {replace(web, "239.80.80.80", "224.5.5.5"), "public"},
		"vip a group":         {replace(web, "192.0.2.80", "239.1.1.1"), "multicast address"},
		"vip loopback":        {replace(web, "192.0.2.80", "127.0.0.1"), "not an address that users can reach"},
		"vip IPv6":            {replace(web, "192.0.2.80", "2001:db8::1"), "IPv4"},
		"no vip":              {replace(web, "vip: 192.0.2.80", ""), "vip is missing"},
		"port 0":              {replace(web, "tcp/80", "tcp/0"), "tcp/0"},
		"unknown protocol":    {replace(web, "tcp/80", "sctp/80"), "sctp/80"},
		"port twice":          {replace(web, "udp/53", "tcp/80"), "twice"},
		"no ports":            {replace(web, "tcp/80, udp/53", ""), "ports"},
		"name":                {replace(web, "web", "Web_1"), "lower-case"},
		"name twice":          {web + "---" + replace(web, "192.0.2.80", "192.0.2.81"), "web is there twice"},
		"policy":              {web + "policy: fair", "fair"},
		"geo of nothing":      {web + "policy: geo", "without prefixes"},
		"interval":            {replace(geo, "30s", "10ms"), "interval 10ms: want 1s to 1h"},
		"interval no time":    {replace(geo, "30s", "soon"), "soon"},
		"hysteresis":          {replace(geo, "7%", "0"), "hysteresis 0%: want 1% to 100%"},
		"step":                {replace(geo, "0.025", "101%"), "step 101%"},
		"step no number":      {replace(geo, "0.025", "NaN"), "step NaN%"},
		"part":                {replace(geo, "7%", "a tenth"), "want a part such as 10% or 0.1"},
		"range":               {replace(geo, "2.5", "0.5"), "range 0.5"},
		"split":               {replace(geo, "split: 0", "split: 1%"), "split 1%: want 10% to 10000%, or 0: never"},
		"shed":                {replace(geo, "90%", "-1"), "shed -100%"},
		"unknown knob":        {replace(geo, "step", "stride"), "stride"},
		"prefix":              {replace(geo, "10.9.0.0/16", "10.9.0.1/16"), "did you mean 10.9.0.0/16"},
		"prefix twice":        {replace(geo, "10.9.0.0/16", "10.0.0.0/8"), "10.0.0.0/8 is there twice"},
		"prefixes cross":      {replace(geo, "10.9.0.0/16", "0.9.0.0/0.255.0.0"), "neither lies in the other"},
		"prefix of everybody": {replace(geo, "10.9.0.0/16", "0.0.0.0/0"), "everybody"},
		"prefix IPv6":         {replace(geo, "10.9.0.0/16", "2001:db8::/32"), "want IPv4"},
		"prefix of nobody":    {replace(geo, "[s3]", "[]"), "10.9.0.0/16: 0 servers"},
		"prefix's server":     {replace(geo, "[s3]", "[S3]"), "S3"},
		"one server twice":    {replace(geo, "[s1, s2]", "[s1, s1]"), "s1 is there twice"},
		"too many slots":      {geo + "slots: suffix/16", "slots of suffix/16 in all"},
		"static prefixes":     {static + "prefixes: [{prefix: 10.0.0.0/8, servers: [s1]}]", "static"},
		"split of multicast":  {web + "split: [203.0.113.7/32]", "split goes with mode tags"},
		"split and a group":   {split + "group: 239.1.1.1", "take one of the two out"},
		"split, no prefix":    {replace(split, "203.0.113.7", "everybody"), "everybody"},
		"split, bits behind":  {replace(split, "203.0.113.7", "203.0.113.7/24"), "did you mean 203.0.113.0/24"},
		"split twice":         {replace(split, "203.0.113.7", "198.51.100.0/24"), "198.51.100.0/24 is there twice"},
		"split as mapped":     {replace(split, "203.0.113.7", "\"::ffff:203.0.113.7\""), "no prefix of addresses"},
		"split of too many":   {replace(split, "203.0.113.7", strings.Join(addresses(257), ", ")), "259 prefixes, at most 256"},
		"slots":               {web + "slots: suffix/17", "17 bits"},
		"handover":            {web + "handover: magic", "magic"},
		"handover twice":      {web + "handover: [forward, forward]", "forward is there twice"},
		"handover after all":  {web + "handover: [reset, forward]", "nothing is left after it"},
		"handover's key":      {web + "handover: {strategy: forward, deadlin: 1s}", "no key deadlin"},
		"handover's close":    {web + "handover: {strategy: reset, close: softly}", "close \"softly\""},
		"deadline of forward": {web + "handover: {strategy: forward, deadline: 1s}", "deadline goes with transfer"},
		"deadline":            {web + "handover: {strategy: transfer, deadline: 1ms}", "want 100ms to 1m0s"},
		"break of reset":      {web + "handover: {strategy: reset, break: 1m}", "break goes with forward and pin"},
		"break":               {web + "handover: {strategy: forward, break: soon}", "break \"soon\""},
		"static handover":     {static + "handover: forward", "it takes a leader"},
		"vip and port taken":  {web + "---" + replace(web, "web", "dns", "239.80.80.80", "239.1.1.1", "tcp/80", "tcp/81"), "udp/53"},
		"group taken":         {web + "---" + replace(web, "web", "dns", "192.0.2.80", "192.0.2.81"), "same group"},
		"portions overlap":    {replace(static, "0.0.0.3/0.0.0.3", "0.0.0.2/0.0.0.3"), "portions"},
		"portions incomplete": {replace(static, ", 0.0.0.3/0.0.0.3", ""), "portions"},
		"server twice":        {replace(static, "s2", "s1"), "twice"},
		"address twice":       {replace(static, "10.4.0.12", "10.3.0.11"), "same address"},
		"weight":              {replace(static, "weight: 3", "weight: -3"), "weight -3"},
		"portion":             {replace(static, "0.0.0.0/0.0.0.1", "10.0.0.0/99"), "10.0.0.0/99"},
		"denied, nobody's":    {replace(denying, "[10.1.0.12, 10.1.0.14]}\n  - {name: s2", "[10.1.0.12, 10.1.0.14, 10.1.0.16]}\n  - {name: s2"), "10.1.0.16"},
		"permitted twice":     {replace(denying, "deny: [10.1.0.12, 10.1.0.14]", "deny: [10.1.0.12]"), "10.1.0.14"},
		"deny alone":          {web + "servers: [{name: s1, address: 10.3.0.11, deny: [10.1.0.12]}]", "deny without portions"},
		"denied portion":      {replace(denying, "deny: [10.1.0.12", "deny: [10.1.0.312"), "deny"},
		"not YAML":            {"name: [", "document 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not speak of %q (%+v)", err, test.want, got)
			}
		})
	}
}

func TestServicesShareAVIPByPort(t *testing.T) {
	_, err := Parse([]byte(web + "---" + replace(web, "web", "mail", "239.80.80.80", "239.25.25.25", "tcp/80, udp/53", "tcp/25")))
	if err != nil {
		t.Error(err)
	}
}

// handovers are all that can be said of one, and what is meant.
var handovers = map[string]Handover{
	"handover: forward":             {Strategies: []Strategy{Forward}, Close: CloseReset},
	"handover: [transfer, forward]": {Strategies: []Strategy{Transfer, Forward}, Close: CloseReset, Deadline: 2 * time.Second},
	"handover: {strategy: [pin, forward, reset], close: orderly, break: 5m}": {
		Strategies: []Strategy{Pin, Forward, Reset}, Close: CloseOrderly, Break: 5 * time.Minute,
	},
	"handover: {strategy: transfer, deadline: 750ms}": {Strategies: []Strategy{Transfer}, Close: CloseReset, Deadline: 750 * time.Millisecond},
}

func TestHandovers(t *testing.T) {
	for text, want := range handovers {
		services, err := Parse([]byte(web + text))
		if err != nil {
			t.Fatal(err)
		}
		if got := services[0].Handover; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
		out, err := Marshal(services...)
		if err != nil || !strings.Contains(string(out), text) && !strings.Contains(text, "{") {
			t.Errorf("%v: %s became\n%s", err, text, out)
		}
		back, err := FromProto(ToProto(services[0]))
		if err != nil || !reflect.DeepEqual(back.Handover, want) {
			t.Errorf("%v: %s on the bus is %+v", err, text, back.Handover)
		}
	}
	if h, err := handoverFromProto(nil); err != nil || !reflect.DeepEqual(h, DefaultHandover()) {
		t.Errorf("not said: %+v, %v", h, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(web)
	for text := range handovers {
		f.Add(web + text)
	}
	f.Add(static)
	f.Add(denying)
	f.Add(geo)
	f.Add(split)
	f.Fuzz(func(t *testing.T, text string) {
		services, err := Parse([]byte(text))
		if err != nil {
			return
		}
		out, err := Marshal(services...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil || !cmp.Equal(services, again, byAddress, cmpopts.EquateEmpty()) {
			t.Fatalf("%v\n%s\nbecame\n%s", err, text, out)
		}
	})
}

func FuzzFromProto(f *testing.F) {
	for _, text := range []string{web, static, geo, split} {
		services, err := Parse([]byte(text))
		if err != nil {
			f.Fatal(err)
		}
		data, err := proto.Marshal(ToProto(services[0]))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p servicev1.Service
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		s, err := FromProto(&p)
		if err != nil {
			return
		}
		if err := ValidateAll([]Service{s}); err != nil {
			t.Fatalf("taken from the bus, refused from a file: %v", err)
		}
		again, err := FromProto(ToProto(s))
		if err != nil || !cmp.Equal(s, again, byAddress, cmpopts.EquateEmpty()) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

func addresses(n int) (all []string) {
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String())
	}
	return all
}

func replace(text string, oldnew ...string) string {
	return strings.NewReplacer(oldnew...).Replace(text)
}

// Where routers know a VIP, and no port, it is one service's: with mode tags, and where users may be pinned.
func TestVIPOfPinnedUsersIsOneServices(t *testing.T) {
	one := "name: web\nvip: 192.0.2.80\ngroup: 239.1.1.1\nports: [tcp/80]\n"
	two := "name: api\nvip: 192.0.2.80\ngroup: 239.1.1.2\nports: [tcp/81]\n"
	if _, err := Parse([]byte(one + "---\n" + two)); err != nil {
		t.Error(err)
	}
	if _, err := Parse([]byte(one + "---\n" + two + "handover: pin\n")); err == nil {
		t.Error("two services have one VIP, and routers would pin users of both")
	}
}
