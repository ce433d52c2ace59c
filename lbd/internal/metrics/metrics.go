// Package metrics shows a data plane's counters to Prometheus.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Counters shows the uint64 fields of what read returns as counters manycast_ROLE_FIELD_total.
type Counters[C any] struct {
	role string
	read func() (C, error)
}

// NewCounters returns a collector for a role, "director" or "agent".
func NewCounters[C any](role string, read func() (C, error)) *Counters[C] {
	return &Counters[C]{role, read}
}

// Describe implements prometheus.Collector.
func (c *Counters[C]) Describe(descs chan<- *prometheus.Desc) {
	for field := range reflect.TypeFor[C]().Fields() {
		descs <- c.desc(field.Name)
	}
}

// Collect implements prometheus.Collector.
func (c *Counters[C]) Collect(metrics chan<- prometheus.Metric) {
	counters, err := c.read()
	v := reflect.ValueOf(counters)
	for i := range v.NumField() {
		desc := c.desc(v.Type().Field(i).Name)
		if err != nil {
			metrics <- prometheus.NewInvalidMetric(desc, err)
			continue
		}
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v.Field(i).Uint()))
	}
}

func (c *Counters[C]) desc(field string) *prometheus.Desc {
	name := prometheus.BuildFQName("manycast", c.role, snake(field)+"_total")
	return prometheus.NewDesc(name, "Data plane counter "+field+".", nil, nil)
}

// snake turns NotMine into not_mine, ICMPErrors into icmp_errors.
func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		next := i+1 < len(s) && unicode.IsLower(rune(s[i+1]))
		if i > 0 && unicode.IsUpper(r) && (unicode.IsLower(rune(s[i-1])) || next) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// Server answers /metrics; a daemon's task.
type Server struct {
	listen   net.Listener
	registry *prometheus.Registry
}

// Listen takes the address, so that an address in use is found at the start.
func Listen(address string, collectors ...prometheus.Collector) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w", err)
	}
	r := prometheus.NewRegistry()
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return nil, errors.Join(fmt.Errorf("metrics: %w", err), l.Close())
		}
	}
	return &Server{l, r}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listen.Addr() }

// String names the task.
func (s *Server) String() string { return "metrics" }

// Ready is nil: connections are taken from the start.
func (s *Server) Ready() <-chan struct{} { return nil }

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // ends Serve, which tells
	defer stop()
	if err := server.Serve(s.listen); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
