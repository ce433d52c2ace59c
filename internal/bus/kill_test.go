package bus

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// spawn runs the bus in a process of its own until kill.
func (s *testServer) spawn() (kill func()) {
	s.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", busProcess, s.cfg.Listen, s.cfg.DataDir))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if errs.Len() > 0 {
			s.t.Errorf("the bus said: %s", errs.String())
		}
	})
	s.t.Cleanup(kill)
	return kill
}

// TestKilledBusIsNotDamaged kills the bus again and again while clients write to all kinds of buckets: it starts each time, and
// what it acknowledged is there.
func TestKilledBusIsNotDamaged(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	s.end()
	acknowledged := make([]int, 40) // by key
	for round := range 8 {
		kill := s.spawn()
		ctx, cancel := context.WithCancel(t.Context())
		conn := s.connect("admin")
		services := conn.Bucket(BucketConfig{Name: BucketServices})
		for key, want := range acknowledged {
			if want == 0 {
				continue
			}
			e, err := services.Get(ctx, "web"+strconv.Itoa(key))
			got, _ := strconv.Atoi(string(bytes.TrimRight(e.Value, ".")))
			if err != nil || got < want {
				t.Fatalf("round %d: web%d is %d, %v: %d was acknowledged", round, key, got, err, want)
			}
		}
		var writers sync.WaitGroup
		writers.Go(func() {
			padding := bytes.Repeat([]byte("."), 20_000)
			for n := 1; ctx.Err() == nil; n++ {
				key := n % len(acknowledged)
				value := round*1_000_000 + n
				if _, err := services.Put(ctx, "web"+strconv.Itoa(key), append(strconv.AppendInt(nil, int64(value), 10), padding...)); err == nil {
					acknowledged[key] = value
				}
			}
		})
		for _, bucket := range []string{BucketLeases, BucketServers, BucketMoves, BucketAllocations} {
			b := conn.Bucket(BucketConfig{Name: bucket})
			writers.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					_, _ = b.Put(ctx, "web.s"+strconv.Itoa(n%10), make([]byte, 2000)) // fails when the bus is killed
					if n%7 == 0 {
						_ = b.Delete(ctx, "web.s1")
					}
				}
			})
		}
		<-time.After(time.Duration(100+round*97) * time.Millisecond)
		kill()
		cancel()
		writers.Wait()
		conn.Close()
	}
	s.start() // looks through the store once more
	if k, err := readKept(s.cfg.DataDir); err != nil || k.Last[BucketServices] == 0 {
		t.Errorf("kept %+v, %v", k, err)
	}
}
