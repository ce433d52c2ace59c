package scenario

import (
	"testing"

	"github.com/google/go-cmp/cmp"
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
