package bus_test

import (
	"encoding/json"
	"testing"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/bus"
)

func TestStatus(t *testing.T) {
	b := cmdtest.Start(t)
	b.Service(cmdtest.Web)
	var rows []struct {
		Bucket string
		Keys   int
	}
	if err := json.Unmarshal([]byte(b.OK("bus", "status", "-o", "json")), &rows); err != nil {
		t.Fatal(err)
	}
	keys := map[string]int{}
	for _, r := range rows {
		keys[r.Bucket] = r.Keys
	}
	if len(rows) != len(bus.Buckets()) || keys[bus.BucketServices] != 1 || keys[bus.BucketMoves] != 0 {
		t.Errorf("%+v", rows)
	}
	r := cmdtest.Run(t, "", "bus", "status", "--bus", "nats://127.0.0.1:1", "--credentials", b.Credentials(), "--timeout", "200ms")
	if r.Error == nil {
		t.Error("no error without a bus")
	}
}
