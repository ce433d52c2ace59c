// Package metrics makes a data plane's counters Prometheus metrics.
package metrics

import (
	"reflect"
	"strings"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
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
