// SPDX-License-Identifier: Apache-2.0

// Package linechart writes line charts as SVG.
package linechart

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Chart is a chart of lines. LogX spaces the x axis by powers of ten. All values are positive.
type Chart struct {
	Title, X, Y string
	LogX        bool
	Lines       []Line
}

// Line is one series of points in the order of x.
type Line struct {
	Name   string
	Points []Point
}

// Point is one value.
type Point struct{ X, Y float64 }

const (
	width, height            = 720.0, 380.0
	left, right, top, bottom = 64.0, 190.0, 36.0, 48.0
)

// colours can be told apart also by most people who see few of them.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}

// Write writes c to w. The same chart gives the same bytes.
func (c Chart) Write(w io.Writer) error {
	minX, maxX, maxY := math.Inf(1), math.Inf(-1), 0.0
	for _, l := range c.Lines {
		for _, p := range l.Points {
			minX, maxX, maxY = min(minX, c.x(p.X)), max(maxX, c.x(p.X)), max(maxY, p.Y)
		}
	}
	stepY := round(maxY / 5)
	maxY = math.Ceil(maxY/stepY) * stepY
	px := func(v float64) float64 { return left + (v-minX)/(maxX-minX)*(width-left-right) }
	py := func(v float64) float64 { return height - bottom - v/maxY*(height-top-bottom) }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" `, width, height)
	b.WriteString(`font-family="sans-serif" font-size="12">` + "\n")
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="#fff"/>`+"\n", width, height)
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n",
			x, y, anchor, html.EscapeString(s))
	}
	line := func(x1, y1, x2, y2 float64) {
		fmt.Fprintf(&b, `<path d="M%.1f %.1fL%.1f %.1f" stroke="#ccc"/>`+"\n", x1, y1, x2, y2)
	}
	text(left, 20, "start", c.Title)
	text((left+width-right)/2, height-8, "middle", c.X)
	text(8, top-6, "start", c.Y)
	for v := 0.0; v <= maxY; v += stepY {
		line(left, py(v), width-right, py(v))
		text(left-6, py(v)+4, "end", fmt.Sprintf("%g", v))
	}
	stepX := 1.0
	if !c.LogX {
		stepX = round((maxX - minX) / 6)
	}
	for v := math.Ceil(minX/stepX) * stepX; v <= maxX; v += stepX {
		line(px(v), height-bottom, px(v), height-bottom+4)
		label := v
		if c.LogX {
			label = math.Pow(10, v)
		}
		text(px(v), height-bottom+18, "middle", fmt.Sprintf("%g", label))
	}
	for i, l := range c.Lines {
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<path fill="none" stroke-width="2" stroke="%s" d="`, colour)
		for j, p := range l.Points {
			fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(j, 1)], px(c.x(p.X)), py(p.Y))
		}
		b.WriteString(`"/>` + "\n")
		y := top + 18*float64(i)
		fmt.Fprintf(&b, `<path stroke-width="2" stroke="%s" d="M%g %gh16"/>`+"\n",
			colour, width-right+8, y)
		text(width-right+30, y+4, "start", l.Name)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (c Chart) x(v float64) float64 {
	if c.LogX {
		return math.Log10(v)
	}
	return v
}

// round returns the next larger of 1, 2 and 5 times a power of ten.
func round(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if v <= f*unit {
			return f * unit
		}
	}
	return 10 * unit
}
