package channel

import (
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
)

// TestIdentityIsThatOfTheProcess: a server that is called otherwise in allocations than on the channel would count as never heard.
func TestIdentityIsThatOfTheProcess(t *testing.T) {
	c := identity.Certificate{Name: "s1", Role: control.Server}
	if err := belongs(c, "identity.key", "s1", control.Server); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"name": belongs(c, "identity.key", "s2", control.Server), "role": belongs(c, "identity.key", "s1", control.Director),
	} {
		if err == nil || !strings.Contains(err.Error(), "identity.key") {
			t.Errorf("another %s: %v", what, err)
		}
	}
}
