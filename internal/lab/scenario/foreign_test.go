package scenario

import (
	"slices"
	"testing"
)

// As FRR 8.4 answers: a neighbor is there once for each family.
func TestForeignSessions(t *testing.T) {
	up, err := operationalAt([]byte(`{"neighbors":[
		{"addressFamily":"ipv6","neighborId":"10.0.0.12","state":"OPERATIONAL","upTime":"00:00:08"},
		{"addressFamily":"ipv4","neighborId":"10.0.0.12","state":"OPERATIONAL","upTime":"00:00:08"},
		{"addressFamily":"ipv4","neighborId":"10.0.0.11","state":"OPERATIONAL","upTime":"00:00:08"},
		{"addressFamily":"ipv4","neighborId":"10.0.0.13","state":"OPENSENT"}]}`))
	if err != nil || !slices.Equal(up, []string{"10.0.0.11", "10.0.0.12"}) {
		t.Errorf("%v, %v", up, err)
	}
	if _, err := operationalAt([]byte("% Unknown command")); err == nil {
		t.Error("no error of what is no answer")
	}
}
