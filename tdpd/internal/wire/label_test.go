package wire

import "testing"

func TestLabelValid(t *testing.T) {
	for l := range Label(32) {
		want := l == 0 || l == 2 || l == 3 || l >= 16
		if got := l.Valid(); got != want {
			t.Errorf("label %d: %v, want %v", uint32(l), got, want)
		}
	}
	if !LabelLast.Valid() || (LabelLast + 1).Valid() || Label(1<<32-1).Valid() {
		t.Error("the range does not end at 2^20-1")
	}
}

func TestLabelString(t *testing.T) {
	for l, want := range map[Label]string{0: "explicit-null", 2: "ipv6-explicit-null", 3: "implicit-null", 16: "16", LabelLast: "1048575"} {
		if got := l.String(); got != want {
			t.Errorf("%d: %s, want %s", uint32(l), got, want)
		}
	}
}
