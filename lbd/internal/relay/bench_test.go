package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
)

// BenchmarkRelay compares requests and downloads through the relay with those without it, in one run: keep-alive connections, one request at a
// time on each.
func BenchmarkRelay(b *testing.B) {
	const bulk = 64 << 20
	backend := serveHTTP(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/bulk" {
			io.WriteString(w, "answer")
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(bulk))
		piece := make([]byte, 1<<20)
		for range bulk / len(piece) {
			w.Write(piece)
		}
	}))
	h := newHost(b, backend, Nothing)
	for _, way := range []struct{ name, at string }{{"direct", backend}, {"relay", h.addr().String()}} {
		for _, each := range []int{1, 32} {
			b.Run(fmt.Sprintf("requests/%s/users=%d", way.name, each*runtime.GOMAXPROCS(0)), func(b *testing.B) {
				b.SetParallelism(each)
				b.RunParallel(func(p *testing.PB) {
					c := client(b, way.at)
					defer c.Close()
					answers := bufio.NewReader(c)
					for p.Next() {
						fetch(b, c, answers, "/")
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			})
		}
		b.Run("bulk/"+way.name, func(b *testing.B) {
			b.SetBytes(bulk)
			c := client(b, way.at)
			defer c.Close()
			answers := bufio.NewReaderSize(c, 256<<10)
			for b.Loop() {
				fetch(b, c, answers, "/bulk")
			}
		})
	}
}

func client(b *testing.B, at string) net.Conn {
	c, err := net.Dial("tcp", at)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func fetch(b *testing.B, c net.Conn, answers *bufio.Reader, path string) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path); err != nil {
		b.Fatal(err)
	}
	a, err := http.ReadResponse(answers, nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		b.Fatal(err)
	}
}
