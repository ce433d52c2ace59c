package load

import (
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/portion"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]struct {
		load   float64 // -1: it says nothing of it
		wanted int
		err    string
	}{
		"0.7\n":           {load: 0.7},
		" 0 ":             {load: 0},
		"1e2":             {load: 100},
		`{"load": 0.7}`:   {load: 0.7},
		"{}":              {load: -1},
		`{"load": null}`:  {load: -1},
		"":                {err: "empty"},
		"-1":              {err: "want 0 to 1000"},
		"NaN":             {err: "want 0 to 1000"},
		"inf":             {err: "want 0 to 1000"},
		"1001":            {err: "want 0 to 1000"},
		"seven":           {err: "want a number"},
		"0.7 0.8":         {err: "want a number"},
		`{"load": -1}`:    {err: "want 0 to 1000"},
		`{"load": 1e999}`: {err: "want JSON"},
		`{"laod": 0.7}`:   {err: "laod"},
		`{"load": 1} {}`:  {err: "something follows"},
		`{"load": 1`:      {err: "want JSON"},
		`[1]`:             {err: "want a number"},
		`{"load": 0.7, "wanted": ["10.0.0.0/8", "0.0.0.3/0.0.0.255"]}`:                     {load: 0.7, wanted: 2},
		`{"wanted": ["10.0.0.1"]}`:                                                         {load: -1, wanted: 1},
		`{"wanted": ["10.0.0.1/8"]}`:                                                       {err: "bits outside the mask"},
		`{"wanted": ["2001:db8::/32"]}`:                                                    {err: "want IPv4"},
		`{"wanted": [` + strings.TrimSuffix(strings.Repeat(`"10.0.0.1",`, 65), ",") + `]}`: {err: "65 portions"},
		strings.Repeat("1", MaxWord+1):                                                     {err: "at most"},
	} {
		w, err := Parse([]byte(text))
		if want.err != "" {
			if err == nil || !strings.Contains(err.Error(), want.err) || w.Load != nil || w.Wanted != nil {
				t.Errorf("%.60q: %+v, error %v, want %q", text, w, err, want.err)
			}
			continue
		}
		if err != nil || len(w.Wanted) != want.wanted || (w.Load == nil) != (want.load < 0) || w.Load != nil && *w.Load != want.load {
			t.Errorf("%.60q: %+v, error %v, want %+v", text, w, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0.7", `{"load": 0.7, "wanted": ["10.0.0.0/8", "0.0.0.3/0.0.0.255"]}`, "{}", "NaN", `{"wanted": null}`, "0x1p-2"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := Parse(b)
		if err != nil {
			if w.Load != nil || w.Wanted != nil {
				t.Errorf("%+v was taken of what is wrong: %v", w, err)
			}
			return
		}
		if w.Load != nil && !(*w.Load >= 0 && *w.Load <= maxLoad) {
			t.Errorf("load %v", *w.Load)
		}
		if len(w.Wanted) > MaxWanted {
			t.Errorf("%d portions", len(w.Wanted))
		}
		for _, p := range w.Wanted {
			if again, err := portion.Parse(p.String()); err != nil || again != p || !p.Is4() {
				t.Errorf("portion %v: read again %v, error %v", p, again, err)
			}
		}
	})
}
