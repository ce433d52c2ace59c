package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// chart is lines over two axes, as SVG.
type chart struct {
	title, x, y string
	log         bool // both axes
	most        float64
	series      []series
}

// series is one line; dashed ones belong to the plain one of the same colour.
type series struct {
	name   string
	color  int
	dashed bool
	x, y   []float64
}

var colors = []string{"#4e79a7", "#f28e2b", "#e15759", "#59a14f", "#b07aa1", "#9c755f"}

const (
	width, height            = 760, 360
	left, right, top, bottom = 64, 170, 34, 44
)

// scale is where a value is between the ends of an axis: 0 to 1.
type scale struct {
	low, high float64
	log       bool
}

func (s scale) at(v float64) float64 {
	if s.log {
		return math.Log(v/s.low) / math.Log(s.high/s.low)
	}
	return (v - s.low) / (s.high - s.low)
}

// ticks are round values.
func (s scale) ticks() (out []float64) {
	if s.log {
		for v := s.low; v <= s.high*1.001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10((s.high-s.low)/3)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (s.high-s.low)/(step*m) <= 8 {
			step *= m
			break
		}
	}
	for v := math.Ceil(s.low/step) * step; v <= s.high*1.0001; v += step {
		out = append(out, v)
	}
	return out
}

// scales fit all series.
func (c chart) scales() (x, y scale) {
	x, y = scale{math.Inf(1), math.Inf(-1), c.log}, scale{math.Inf(1), math.Inf(-1), c.log}
	for _, s := range c.series {
		for i := range s.x {
			x.low, x.high = min(x.low, s.x[i]), max(x.high, s.x[i])
			y.low, y.high = min(y.low, s.y[i]), max(y.high, s.y[i])
		}
	}
	if c.log {
		y.low, y.high = decade(y.low, math.Floor), decade(y.high, math.Ceil)
		x.low, x.high = decade(x.low, math.Floor), decade(x.high, math.Ceil)
	}
	if c.most > 0 {
		y.high = min(y.high, c.most)
	}
	return x, y
}

func decade(v float64, round func(float64) float64) float64 {
	return math.Pow(10, round(math.Log10(v)))
}

func (c chart) svg() string {
	var b strings.Builder
	xs, ys := c.scales()
	px := func(v float64) float64 { return left + (width-left-right)*xs.at(v) }
	py := func(v float64) float64 { return height - bottom - (height-top-bottom)*min(max(ys.at(v), 0), 1) }
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><text x="%d" y="20" font-size="14">%s</text>`+"\n", width, height, left, html.EscapeString(c.title))
	for _, v := range ys.ticks() {
		fmt.Fprintf(&b, `<path d="M%d %.0fH%d" stroke="#ddd"/><text x="%d" y="%.0f" text-anchor="end">%s</text>`+"\n", left, py(v), width-right, left-6, py(v)+4, label(v))
	}
	for _, v := range xs.ticks() {
		fmt.Fprintf(&b, `<text x="%.0f" y="%d" text-anchor="middle">%s</text>`+"\n", px(v), height-bottom+18, label(v))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+width-right)/2, height-8, html.EscapeString(c.x))
	fmt.Fprintf(&b, `<text transform="translate(14 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+height-bottom)/2, html.EscapeString(c.y))
	for i, s := range c.series {
		var d strings.Builder
		for k := range s.x {
			sep := "L"
			if k == 0 {
				sep = "M"
			}
			fmt.Fprintf(&d, "%s%.0f %.1f", sep, px(s.x[k]), py(s.y[k]))
		}
		dash := ""
		if s.dashed {
			dash = ` stroke-dasharray="5 4"`
		}
		at := top + 8 + 18*i
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"%s/>`+"\n", d.String(), colors[s.color%len(colors)], dash)
		fmt.Fprintf(&b, `<path d="M%d %dh20" stroke="%s" stroke-width="2"%s/><text x="%d" y="%d">%s</text>`+"\n", width-right+12, at, colors[s.color%len(colors)], dash, width-right+38, at+4, html.EscapeString(s.name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// label is a short number.
func label(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e6, " M"}, {1e3, " k"}} {
		if v >= unit.size {
			return fmt.Sprintf("%.4g%s", v/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.3g", v)
}
