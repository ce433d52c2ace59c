package wire

import (
	"strconv"
	"testing"
)

func TestStatusCodes(t *testing.T) {
	named := 0
	for _, row := range cells(t, "statuscodes.txt", 3) {
		v, err := strconv.ParseUint(row[0], 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		c := StatusCode(v)
		if c.String() != row[2] || c.Fatal() != (row[1] == "1") || NewStatus(c).Fatal != c.Fatal() {
			t.Errorf("%s: %v, fatal %v; want %s, E bit %s", row[0], c, c.Fatal(), row[2], row[1])
		}
		if c.meaning().name != "" {
			named++
		}
	}
	for c := range StatusCode(len(statusMeanings)) {
		if c.meaning().name != "" {
			named--
		}
	}
	if named != 0 {
		t.Errorf("%d codes are not in the table", -named)
	}
}
