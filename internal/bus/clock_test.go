package bus

import (
	"testing"
	"time"
)

func TestEntriesTellWhenTheyWereWritten(t *testing.T) {
	s := newTestServer(t)
	b := s.connect("admin").Bucket(BucketConfig{Name: BucketServers})
	if _, err := b.Put(t.Context(), "web.s1", []byte("1")); err != nil {
		t.Fatal(err)
	}
	got, err := b.Get(t.Context(), "web.s1")
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.List(t.Context())
	if err != nil || len(all) != 1 || !all[0].Created.Equal(got.Created) {
		t.Fatalf("%v, %v; Get says %v", all, err, got.Created)
	}
	now, err := b.Now(t.Context())
	if age := now.Sub(got.Created); err != nil || age < 0 || age > time.Minute {
		t.Fatalf("written at %v, but the bus' clock says %v, %v", got.Created, now, err)
	}
}
