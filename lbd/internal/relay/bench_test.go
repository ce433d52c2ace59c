package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	benchCount    = 32
	benchRequests = 100      // of each user, in a turn
	benchBulk     = 32 << 20 // bytes
)

// BenchmarkRelay compares requests and a download through the relay with those without it, in turns of one run: users with a keep-alive connection
// each, one request at a time on it. Users, relay and server share the cores.
func BenchmarkRelay(b *testing.B) {
	backend := serveHTTP(b, http.HandlerFunc(serveBench))
	h := newHost(b, backend, Nothing)
	direct, relayed := newBenchUsers(b, backend), newBenchUsers(b, h.addr().String())
	for b.Loop() {
		direct.turn(b)
		relayed.turn(b)
	}
	direct.report(b, "direct")
	relayed.report(b, "relay")
}

func serveBench(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/bulk" {
		io.WriteString(w, "answer")
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(benchBulk))
	piece := make([]byte, 1<<20)
	for range benchBulk / len(piece) {
		w.Write(piece)
	}
}

// benchUser is a connection.
type benchUser struct {
	net.Conn
	answers *bufio.Reader
}

// benchUsers are those of one way to the server, and how long they took.
type benchUsers struct {
	users          []benchUser
	requests, bulk time.Duration
}

func newBenchUsers(b *testing.B, at string) *benchUsers {
	u := &benchUsers{}
	for range benchCount {
		c, err := net.Dial("tcp", at)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		u.users = append(u.users, benchUser{c, bufio.NewReaderSize(c, 64<<10)})
	}
	return u
}

func (u *benchUsers) turn(b *testing.B) {
	begin := time.Now()
	var all sync.WaitGroup
	for _, user := range u.users {
		all.Go(func() {
			for range benchRequests {
				user.fetch(b, "/")
			}
		})
	}
	all.Wait()
	requested := time.Now()
	u.users[0].fetch(b, "/bulk")
	u.requests += requested.Sub(begin)
	u.bulk += time.Since(requested)
}

func (u *benchUsers) report(b *testing.B, way string) {
	n := float64(b.N)
	b.ReportMetric(n*benchCount*benchRequests/u.requests.Seconds(), "requests/s-"+way)
	b.ReportMetric(n*benchBulk/1e6/u.bulk.Seconds(), "MB/s-"+way)
}

func (u benchUser) fetch(b *testing.B, path string) {
	if _, err := fmt.Fprintf(u, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path); err != nil {
		b.Error(err)
		return
	}
	a, err := http.ReadResponse(u.answers, nil)
	if err != nil {
		b.Error(err)
		return
	}
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		b.Error(err)
	}
}
