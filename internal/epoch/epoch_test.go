package epoch

import (
	"slices"
	"testing"
)

func TestOrder(t *testing.T) {
	got := []Epoch{{2, 1}, {1, 9}, {1, 2}, {}}
	slices.SortFunc(got, Epoch.Compare)
	want := []Epoch{{}, {1, 2}, {1, 9}, {2, 1}}
	if !slices.Equal(got, want) {
		t.Fatalf("sorted %v, want %v", got, want)
	}
	if !(Epoch{1, 9}).Less(Epoch{2, 1}) || (Epoch{2, 1}).Less(Epoch{2, 1}) {
		t.Fatal("Less disagrees with Compare")
	}
}

func TestParse(t *testing.T) {
	for _, e := range []Epoch{{}, {3, 17}, {1<<64 - 1, 1<<64 - 1}} {
		got, err := Parse(e.String())
		if err != nil || got != e {
			t.Errorf("Parse(%q) = %v, %v", e, got, err)
		}
	}
	for _, s := range []string{"", "3", "3.", ".3", "a.b", "1.2.3", "-1.2", "18446744073709551616.0"} {
		if e, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, e)
		}
	}
}
