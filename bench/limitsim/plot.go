package main

import (
	"fmt"
	"math"
	"strings"
)

// A chart is a plot of lines as SVG: a white ground, both axes with their units,
// colours that colour-blind readers can tell apart (Okabe and Ito), and a mark of
// its own for each line besides.
type chart struct {
	title, x, y string
	names       []string // along x, one for each point; nil: x is a number
	logX, logY  bool
	lines       []line
	shade       [2]float64 // a part of x that is marked …
	shadeName   string     // … as this
}

type line struct {
	name   string
	points [][2]float64
	plain  bool // without marks
}

const (
	width, height            = 760, 420
	left, right, top, bottom = 76, 24, 44, 92
)

var colours = []string{"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"}

// scale is one axis.
type scale struct {
	from, to   float64
	low, high  float64 // pixels
	log        bool
	tickValues []float64
}

func (s *scale) at(v float64) float64 {
	f, t := s.from, s.to
	if s.log {
		v, f, t = math.Log10(max(v, s.from)), math.Log10(f), math.Log10(t)
	}
	return s.low + (v-f)/(t-f)*(s.high-s.low)
}

func (c *chart) scales() (x, y scale) {
	x = scale{from: math.Inf(1), to: math.Inf(-1), low: left, high: width - right, log: c.logX}
	y = scale{from: math.Inf(1), to: math.Inf(-1), low: height - bottom, high: top, log: c.logY}
	for _, l := range c.lines {
		for _, p := range l.points {
			x.from, x.to = min(x.from, p[0]), max(x.to, p[0])
			if p[1] > 0 || !c.logY {
				y.from, y.to = min(y.from, p[1]), max(y.to, p[1])
			}
		}
	}
	if c.names != nil {
		x.from, x.to = -0.5, float64(len(c.names))-0.5
	}
	for _, s := range []*scale{&x, &y} {
		s.round(s == &x && c.names != nil)
	}
	return x, y
}

// round widens an axis to round numbers and chooses its ticks.
func (s *scale) round(named bool) {
	if s.log {
		s.from, s.to = math.Pow10(int(math.Floor(math.Log10(s.from)))), math.Pow10(int(math.Ceil(math.Log10(s.to))))
		if s.from == s.to {
			s.to *= 10
		}
		for v := s.from; v <= s.to*1.0001; v *= 10 {
			s.tickValues = append(s.tickValues, v)
		}
		return
	}
	if named {
		return
	}
	s.from = min(s.from, 0)
	if s.to <= s.from {
		s.to = s.from + 1
	}
	step := math.Pow10(int(math.Floor(math.Log10((s.to - s.from) / 4))))
	for _, m := range []float64{5, 2} {
		if (s.to-s.from)/(step*m) >= 4 {
			step *= m
			break
		}
	}
	s.from = math.Floor(s.from/step) * step
	s.to = math.Ceil(s.to/step) * step
	for n := 0; float64(n)*step <= s.to-s.from+step/2; n++ {
		s.tickValues = append(s.tickValues, s.from+float64(n)*step)
	}
}

func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case a >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	case a < 1e-9:
		return "0"
	default:
		return fmt.Sprintf("%.4g", v)
	}
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func (c *chart) svg() string {
	x, y := c.scales()
	var b strings.Builder
	text := func(px, py float64, anchor, size, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%s">%s</text>`+"\n", px, py, anchor, size, escape.Replace(s))
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" fill="#222222" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n", escape.Replace(c.title), width, height)
	text(left, 26, "start", "15", c.title)
	if c.shadeName != "" {
		a, z := x.at(c.shade[0]), x.at(c.shade[1])
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#eeeeee"/>`+"\n", a, top, z-a, height-top-bottom)
		text((a+z)/2, top+14, "middle", "12", c.shadeName)
	}
	for _, v := range y.tickValues {
		p := y.at(v)
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#dddddd"/>`+"\n", left, p, width-right, p)
		text(left-8, p+4, "end", "12", number(v))
	}
	for _, v := range x.tickValues {
		p := x.at(v)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#888888"/>`+"\n", p, height-bottom, p, height-bottom+5)
		text(p, height-bottom+19, "middle", "12", number(v))
	}
	for i, n := range c.names {
		text(x.at(float64(i)), height-bottom+19, "middle", "12", n)
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#444444"/>`+"\n", left, top, height-bottom, width-right)
	text((left+width-right)/2, height-bottom+40, "middle", "13", c.x)
	fmt.Fprintf(&b, `<text transform="translate(18 %d) rotate(-90)" text-anchor="middle" font-size="13">%s</text>`+"\n", (top+height-bottom)/2, escape.Replace(c.y))
	for i, l := range c.lines {
		c.line(&b, i, l, &x, &y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// line draws one line, its marks and its entry in the legend.
func (c *chart) line(b *strings.Builder, i int, l line, x, y *scale) {
	colour := colours[i%len(colours)]
	var path strings.Builder
	for n, p := range l.points {
		fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(n, 1)], x.at(p[0]), y.at(p[1]))
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), colour)
	if !l.plain {
		for _, p := range l.points {
			mark(b, i, x.at(p[0]), y.at(p[1]), colour)
		}
	}
	px := float64(left)
	for _, before := range c.lines[:i] {
		px += 60 + 6.6*float64(len(before.name))
	}
	py := float64(height - 22)
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="2"/>`+"\n", px, py, px+24, py, colour)
	if !l.plain {
		mark(b, i, px+12, py, colour)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" font-size="12">%s</text>`+"\n", px+30, py+4, escape.Replace(l.name))
}

// mark is a shape of the line's own.
func mark(b *strings.Builder, i int, x, y float64, colour string) {
	switch i % 4 {
	case 0:
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", x, y, colour)
	case 1:
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="8" height="8" fill="%s"/>`+"\n", x-4, y-4, colour)
	case 2:
		fmt.Fprintf(b, `<path d="M%.1f %.1fl5 9h-10z" fill="%s"/>`+"\n", x, y-5, colour)
	default:
		fmt.Fprintf(b, `<path d="M%.1f %.1fl5 5l-5 5l-5 -5z" fill="%s"/>`+"\n", x, y-5, colour)
	}
}
