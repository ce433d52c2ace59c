package scenario

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/lab/report"
)

// As FRR 8.4 says it: two directors tell the first rule, one the second; the third has another action.
const flowSpecOfFRR = `[
  {
    "to":"192.0.2.80/32",
    "from":"10.1.0.127/32"
  },
  {
    "ecomlist":"NH:10.3.2.10:0"
  },
  {
    "time":"00:00:13"
  },
  {
    "to":"192.0.2.80/32",
    "from":"10.1.0.127/32"
  },
  {
    "ecomlist":"NH:10.3.2.10:0"
  },
  {
    "time":"00:00:13"
  }
]
[
  {
    "to":"192.0.2.80/32",
    "from":"10.1.0.126/31"
  },
  {
    "ecomlist":"NH:10.3.1.10:0"
  },
  {
    "time":"00:00:13"
  }
]
[
  {
    "to":"192.0.2.80/32"
  },
  {
    "ecomlist":"FS:redirect VRF RT:65001:80"
  },
  {
    "time":"00:00:13"
  }
]
`

func TestRulesAsFRRDecodesThem(t *testing.T) {
	got, err := decodedRules([]byte(flowSpecOfFRR))
	if err != nil {
		t.Fatal(err)
	}
	want := told{
		rule("192.0.2.80/32", "10.1.0.127/32", "10.3.2.10"): 2, rule("192.0.2.80/32", "10.1.0.126/31", "10.3.1.10"): 1,
		rule("192.0.2.80/32", "", "FS:redirect VRF RT:65001:80"): 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := decodedRules(nil); err != nil || len(got) != 0 {
		t.Errorf("no rules: %v, %v", got, err)
	}
	if _, err := decodedRules([]byte(`% Unknown command`)); err == nil {
		t.Error("an error of FRR's was taken for rules")
	}
}

func TestWhatNeighborsHaveIsCompared(t *testing.T) {
	tells := told{"a": 2, "b": 1}
	for _, tt := range []struct {
		has  told
		want []string
	}{
		{told{"a": 2, "b": 1}, nil},
		{told{"a": 1, "b": 1}, []string{"a: 1 times for 2"}},
		{told{"a": 2, "c": 1}, []string{"b: 0 times for 1", "c: 1 times for none"}},
	} {
		if diff := cmp.Diff(tt.want, tells.difference(tt.has)); diff != "" {
			t.Errorf("%v: %s", tt.has, diff)
		}
	}
	if n := tells.count(); n != 3 {
		t.Errorf("%d told", n)
	}
}

// As FRR 8.4 logs a host that comes, is drained, and comes back without having said it softly; between, another one, and an End-of-RIB.
const updatesOfFRR = `Graceful restart configuration changed, reset all peers to take effect
2026/12/01 09:23:28.517861 BGP: [T5AAP-5GA85] 10.3.1.110(h) rcvd UPDATE w/ attr: nexthop 10.3.1.110, community graceful-shutdown, path 4200000002 4200000002 4200000002
2026/12/01 09:23:28.517891 BGP: [PCFFM-WMARW] 10.3.1.110(h) rcvd UPDATE wlen 0 attrlen 48 alen 0
2026/12/01 09:23:28.517901 BGP: [YCKEM-GB33T] 10.3.1.110(h) rcvd 10.3.1.10/32 IPv4 unicast
2026/12/01 09:23:28.517914 BGP: [M59KS-A3ZXZ] bgp_update_receive: rcvd End-of-RIB for IPv4 Labeled Unicast from 10.3.1.110 in vrf default
2026/12/01 09:23:29.777416 BGP: [T5AAP-5GA85] 10.3.1.110(h) rcvd UPDATE w/ attr: nexthop 10.3.1.110, path 4200000002
2026/12/01 09:23:29.777434 BGP: [YCKEM-GB33T] 10.3.1.110(h) rcvd 10.3.1.10/32 IPv4 unicast
2026/12/01 09:23:43.303519 BGP: [T5AAP-5GA85] 10.3.1.110(h) rcvd UPDATE w/ attr: nexthop 10.3.1.110, community graceful-shutdown, path 4200000002 4200000002 4200000002
2026/12/01 09:23:43.303536 BGP: [YCKEM-GB33T] 10.3.1.110(h) rcvd 10.3.1.10/32 IPv4 unicast
2026/12/01 09:23:43.303540 BGP: [YCKEM-GB33T] 10.3.1.110(h) rcvd 10.3.1.100/32 IPv4 unicast
2026/12/01 09:23:44.611042 BGP: [PAPP6-VDAWM] 10.3.1.110(h) rcvd UPDATE about 10.3.1.10/32 IPv4 unicast -- withdrawn
2026/12/01 09:23:46.444947 BGP: [T5AAP-5GA85] 10.3.1.110(h) rcvd UPDATE w/ attr: nexthop 10.3.1.110, community graceful-shutdown, path 4200000002
2026/12/01 09:23:46.444968 BGP: [YCKEM-GB33T] 10.3.1.110(h) rcvd 10.3.1.10/32 IPv4 unicast
`

func TestUpdatesAsFRRLogsThem(t *testing.T) {
	want := []string{report.RouteSoft, report.RoutePlain, report.RouteSoft, report.RouteWithdrawn, "nexthop 10.3.1.110, community graceful-shutdown, path 4200000002"}
	if diff := cmp.Diff(want, heardRoutes(updatesOfFRR, "10.3.1.10/32")); diff != "" {
		t.Error(diff)
	}
	if got := heardRoutes(strings.ReplaceAll(updatesOfFRR, "10.3.1.10/32", "10.3.1.11/32"), "10.3.1.10/32"); len(got) > 0 {
		t.Errorf("of another route: %q", got)
	}
}

func TestSilencesOfDirectors(t *testing.T) {
	vars := map[string]string{"hold": "9", "bfd": "false", "interval": "300", "multiplier": "3"}
	b := &bgp{stage: stage{vars: vars}}
	if hold, byBFD, err := b.silences(); hold != 9*time.Second || byBFD != 0 || err != nil {
		t.Errorf("without BFD: %v, %v, %v", hold, byBFD, err)
	}
	vars["bfd"] = "true"
	if hold, byBFD, err := b.silences(); hold != 9*time.Second || byBFD != 900*time.Millisecond || err != nil {
		t.Errorf("with BFD: %v, %v, %v", hold, byBFD, err)
	}
	if _, err := BGP(t.Context(), nil, Options{Duration: time.Minute, Set: map[string]string{"bfd": "yes"}}); err == nil || !strings.Contains(err.Error(), "bfd") {
		t.Errorf("error %v", err)
	}
}
