package runs

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A plot is drawn into a box of boxW by boxH units that the page stretches to
// the width it has; only lines are in it, which are told not to stretch in
// thickness. Labels are HTML beside it, placed in percent, so that text keeps
// its size on a phone.
const (
	boxW = 1000
	boxH = 400
)

// Bounds on what a page holds however long the run was.
const (
	rawPoints    = 800
	smoothPoints = 240
	hoverSlices  = 96
)

// Plot is what a panel is to show.
type Plot struct {
	Title    string
	Lines    []Line
	Levels   []Level
	Unit     string // behind every value: "%"
	FromZero bool   // the axis begins at 0
	Wide     bool   // gets more height
}

// Line is a series in a plot.
type Line struct {
	Name   string // for people
	Series *Series
	Color  int // 1 to 6; 0 chooses by place
}

// Level is a horizontal line to compare with.
type Level struct {
	Name  string
	Value float64
}

// curve is a line prepared for the page.
type curve struct {
	Name   string
	Key    string
	Color  int    // 1 to colors
	Raw    string // SVG paths; "" where there is none
	Smooth string
	Dots   string
	Last   string

	series *Series
	smooth *Series // nil when there are too few points
}

// colors is how many the style sheet knows.
const colors = 6

// tick is a label at an axis, with its place in percent of it.
type tick struct {
	At    string
	Label string
	Y     string // of a grid line, in the box's units
}

// level is a Level prepared for the page.
type level struct {
	tick
	Below bool // where its label stands
}

// hover is a slice of the plot that shows the values under the pointer.
type hover struct {
	X, W string
	Text string
}

// Panel is a plot with its axes, drawn. The template "panel" shows it.
type Panel struct {
	Title  string
	Wide   bool
	Curves []curve
	Levels []level
	YTicks []tick
	XTicks []tick
	Hovers []hover
	Note   string
	Alt    string // the plot in words, for those who don't see it
}

// axis maps values to the box.
type axis struct{ lo, hi float64 }

func (a axis) x(step float64) float64 { return (step - a.lo) / (a.hi - a.lo) * boxW }
func (a axis) y(v float64) float64    { return (a.hi - v) / (a.hi - a.lo) * boxH }

// Panel draws the plot over the steps that its lines have. Lines without a point are
// left out, and so are levels that are no numbers.
func (p Plot) Panel() Panel {
	var series []*Series
	var lines []Line
	for _, l := range p.Lines {
		if l.Series != nil && len(l.Series.Steps) > 0 {
			l.Series.sortSteps()
			lines, series = append(lines, l), append(series, l.Series)
		}
	}
	p.Lines = lines
	return p.draw(stepAxis(series))
}

// draw makes the panel of a plot, over steps.
func (p Plot) draw(steps axis) Panel {
	out := Panel{Title: p.Title, Wide: p.Wide}
	var series []*Series
	for _, l := range p.Lines {
		series = append(series, l.Series)
	}
	values, hidden := valueAxis(series, p.FromZero)
	if hidden > 0 {
		out.Note = fmt.Sprintf("%d off the scale", hidden)
	}
	values = out.addLevels(p, values)
	for i, l := range p.Lines {
		s := l.Series
		c := curve{Name: l.Name, Key: s.Name, Color: l.Color, Last: withUnit(s.Last(), p.Unit), series: s}
		if c.Color == 0 {
			c.Color = i%colors + 1
		}
		finite := s.finite()
		switch {
		case len(finite.Steps) == 0:
		case sparse(finite, steps):
			c.Raw = path(finite, steps, values)
			c.Dots = dots(finite, steps, values)
		case s.Name == "lr": // a schedule has corners, not noise
			c.Smooth = path(extremes(finite, rawPoints), steps, values)
		default:
			c.Raw = path(extremes(finite, rawPoints), steps, values)
			c.smooth = smooth(finite, values)
			c.Smooth = path(c.smooth, steps, values)
		}
		out.Curves = append(out.Curves, c)
	}
	out.YTicks = valueTicks(values)
	if p.Unit != "" {
		for i := range out.YTicks {
			out.YTicks[i].Label += p.Unit
		}
	}
	out.XTicks = stepTicks(steps)
	out.Hovers = hovers(out.Curves, steps, p.Unit)
	out.Alt = alt(p, out.Curves)
	return out
}

// addLevels places a plot's levels, and widens the axis for them and their labels.
func (p *Panel) addLevels(plot Plot, values axis) axis {
	var levels []Level
	for _, l := range plot.Levels {
		if math.Abs(l.Value) < 1e300 { // false for NaN
			levels = append(levels, l)
		}
	}
	slices.SortStableFunc(levels, func(a, b Level) int { return cmp.Compare(b.Value, a.Value) })
	for i, l := range levels {
		if len(p.Curves) == 0 && len(plot.Lines) == 0 && i == 0 { // nothing else gives the axis its place
			values = axis{l.Value - 1, l.Value + 1}
		}
		lo, hi := min(values.lo, l.Value), max(values.hi, l.Value)
		room := (hi - lo) * labelRoom
		if i == 0 && l.Value+room > values.hi { // the highest one's label stands above it
			hi = l.Value + room
		}
		if i > 0 && l.Value-room < values.lo {
			lo = l.Value - room
		}
		if values.lo == 0 && l.Value >= 0 {
			lo = 0
		}
		values = axis{lo, hi}
	}
	for i, l := range levels {
		y := values.y(l.Value)
		p.Levels = append(p.Levels, level{tick{At: coord(y / boxH * 100), Label: strings.TrimSpace(l.Name + " " + withUnit(l.Value, plot.Unit)), Y: coord(y)}, i > 0})
	}
	return values
}

// labelRoom is the share of the axis that a level's label takes.
const labelRoom = 0.14

// withUnit writes a value with its unit.
func withUnit(v float64, unit string) string {
	if unit == "%" { // tenths of them are enough
		return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) + unit
	}
	return Figure(v) + unit
}

// stepAxis spans the steps of series.
func stepAxis(series []*Series) axis {
	steps := axis{math.Inf(1), math.Inf(-1)}
	for _, s := range series {
		steps.lo = min(steps.lo, float64(s.Steps[0]))
		steps.hi = max(steps.hi, float64(s.Steps[len(s.Steps)-1]))
	}
	if len(series) == 0 {
		return axis{0, 1}
	}
	if steps.lo == 1 && steps.hi >= 10 {
		steps.lo = 0 // the axis begins where training does
	}
	if steps.lo == steps.hi { // a single step stands in the middle
		return axis{steps.lo - 1, steps.hi + 1}
	}
	steps.hi += (steps.hi - steps.lo) * 0.006 // room for half a dot
	return steps
}

// finite is the series without what is not a number, or so large that
// differences overflow.
func (s *Series) finite() *Series {
	out := &Series{Name: s.Name}
	for i, v := range s.Values {
		if math.Abs(v) < 1e300 { // false for NaN
			out.Steps = append(out.Steps, s.Steps[i])
			out.Values = append(out.Values, v)
		}
	}
	return out
}

// sparse says whether points are few enough to be shown each: evaluations, or
// a run of a few steps.
func sparse(s *Series, steps axis) bool {
	n := float64(len(s.Steps))
	return n < 20 || n <= 60 && n < (steps.hi-steps.lo+1)/2
}

// valueAxis spans the values. A few wild ones, such as the loss of the first
// steps or a gradient that exploded, must not flatten the rest: they may run
// off the scale, and their number is told.
func valueAxis(series []*Series, zero bool) (a axis, hidden int) {
	var all []float64
	for _, s := range series {
		all = append(all, s.finite().Values...)
	}
	if len(all) == 0 {
		return axis{0, 1}, 0
	}
	slices.Sort(all)
	lo, hi := all[0], all[len(all)-1]
	if len(all) >= 50 {
		low, high := all[len(all)/100], all[len(all)-1-len(all)/100]
		if usual := high - low; usual > 0 {
			for hi-high > 2*usual {
				hidden++
				hi = all[len(all)-1-hidden]
			}
			top := hidden
			for low-lo > 2*usual {
				hidden++
				lo = all[hidden-top]
			}
		}
	}
	if zero && lo > 0 {
		lo = 0
	}
	if hi == lo {
		pad := max(math.Abs(hi)*0.1, 1e-12)
		if hi == 0 {
			pad = 1
		}
		return axis{lo - pad, hi + pad}, hidden
	}
	pad := (hi - lo) * 0.06
	a = axis{lo - pad, hi + pad}
	if lo >= 0 && a.lo < 0 { // no room below 0 for what is never negative
		a.lo = 0
	}
	return a, hidden
}

// path joins points.
func path(s *Series, steps, values axis) string {
	var b strings.Builder
	for i := range s.Steps {
		op := byte('L')
		if i == 0 {
			op = 'M'
		}
		b.WriteByte(op)
		b.WriteString(coord(steps.x(float64(s.Steps[i]))))
		b.WriteByte(' ')
		b.WriteString(coord(values.y(s.Values[i])))
	}
	return b.String()
}

// dots marks points: lines without length, whose round ends are not stretched.
func dots(s *Series, steps, values axis) string {
	var b strings.Builder
	for i := range s.Steps {
		fmt.Fprintf(&b, "M%s %sh0", coord(steps.x(float64(s.Steps[i]))), coord(values.y(s.Values[i])))
	}
	return b.String()
}

// coord writes a coordinate to a tenth of a unit. Far outside the box it stops,
// as renderers overflow.
func coord(v float64) string {
	v = min(max(v, -10*boxW), 10*boxW)
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

// buckets calls do with the index ranges of about equal parts of n points.
func buckets(n, parts int, do func(from, to int)) {
	parts = min(parts, n)
	for i := range parts {
		do(i*n/parts, (i+1)*n/parts)
	}
}

// extremes thins a series out to most points, keeping the highest and lowest
// of each part, so that spikes stay visible.
func extremes(s *Series, most int) *Series {
	if len(s.Steps) <= most {
		return s
	}
	out := &Series{Name: s.Name}
	buckets(len(s.Steps), most/2, func(from, to int) {
		lo, hi := from, from
		for i := from; i < to; i++ {
			if s.Values[i] < s.Values[lo] {
				lo = i
			}
			if s.Values[i] > s.Values[hi] {
				hi = i
			}
		}
		first, second := min(lo, hi), max(lo, hi)
		out.Steps = append(out.Steps, s.Steps[first], s.Steps[second])
		out.Values = append(out.Values, s.Values[first], s.Values[second])
	})
	return out
}

// smooth fits a line to the points around each place, weighted by a Gaussian.
// Unlike an average of the past it does not lag, and unlike an average of both
// sides it does not bend at the ends. Values beyond the axis count as at its
// end, so that one of them does not lift its whole neighbourhood. Long series
// are averaged in parts first.
func smooth(s *Series, values axis) *Series {
	mean := &Series{Name: s.Name}
	buckets(len(s.Steps), 4*smoothPoints, func(from, to int) {
		sum := 0.0
		for _, v := range s.Values[from:to] {
			sum += min(max(v, values.lo), values.hi)
		}
		mean.Steps = append(mean.Steps, s.Steps[(from+to-1)/2])
		mean.Values = append(mean.Values, sum/float64(to-from))
	})
	n := len(mean.Steps)
	sigma := max(2, float64(n)/50)
	reach := int(3 * sigma)
	weights := make([]float64, reach+1)
	for d := range weights {
		weights[d] = math.Exp(-0.5 * float64(d*d) / (sigma * sigma))
	}
	out := &Series{Name: s.Name}
	at := func(i int) {
		// Weighted least squares of value on distance; the fit at distance 0.
		var w0, w1, w2, v0, v1 float64
		for j := max(0, i-reach); j <= min(n-1, i+reach); j++ {
			d, w := float64(j-i), weights[max(i-j, j-i)]
			w0, w1, w2 = w0+w, w1+w*d, w2+w*d*d
			v0, v1 = v0+w*mean.Values[j], v1+w*d*mean.Values[j]
		}
		out.Steps = append(out.Steps, mean.Steps[i])
		out.Values = append(out.Values, (w2*v0-w1*v1)/(w2*w0-w1*w1))
	}
	buckets(n-1, smoothPoints, func(from, _ int) { at(from) })
	at(n - 1)
	return out
}

// niceStep is the smallest of 1, 2, 5 times a power of ten that cuts span into
// at most parts.
func niceStep(span float64, parts int) float64 {
	raw := span / float64(parts)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= raw*(1-1e-9) {
			return m * power
		}
	}
	return 10 * power
}

func valueTicks(a axis) []tick {
	step := niceStep(a.hi-a.lo, 5)
	var ticks []tick
	for i := math.Ceil(a.lo/step - 1e-9); i*step <= a.hi+1e-9*step && len(ticks) < 12; i++ {
		v := i * step
		y := a.y(v)
		ticks = append(ticks, tick{At: coord(y / boxH * 100), Label: tickLabel(v, step), Y: coord(y)})
	}
	return ticks
}

func stepTicks(a axis) []tick {
	step := max(1, niceStep(a.hi-a.lo, 5))
	var ticks []tick
	for i := math.Ceil(a.lo/step - 1e-9); i*step <= a.hi+1e-9*step && len(ticks) < 12; i++ {
		label := tickLabel(i*step, step)
		if i != 0 && a.hi < 10_000 {
			label = strconv.FormatFloat(i*step, 'f', 0, 64)
		}
		ticks = append(ticks, tick{At: coord(a.x(i*step) / boxW * 100), Label: label})
	}
	return ticks
}

// tickLabel writes a tick's value with the digits that its neighbours ask for.
func tickLabel(v, step float64) string {
	if math.Abs(v) < step/1e6 {
		return "0"
	}
	for _, u := range []struct {
		factor float64
		name   string
	}{{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}} {
		if step >= u.factor/10 && math.Abs(v) >= u.factor || math.Abs(v) >= 10*u.factor {
			return strconv.FormatFloat(v/u.factor, 'f', decimals(step/u.factor), 64) + u.name
		}
	}
	if step < 1e-4 {
		exponent := math.Floor(math.Log10(math.Abs(v)) + 1e-9)
		digits := decimals(step / math.Pow(10, exponent))
		return scientific(strconv.FormatFloat(v, 'e', digits, 64))
	}
	return strconv.FormatFloat(v, 'f', decimals(step), 64)
}

// decimals is how many digits behind the point tell multiples of step apart.
func decimals(step float64) int {
	return min(max(0, int(math.Ceil(-math.Log10(step)-1e-9))), 12)
}

// scientific shortens 2.0e-05 to 2e-5.
func scientific(s string) string {
	mantissa, exponent, found := strings.Cut(s, "e")
	if !found {
		return s
	}
	if strings.Contains(mantissa, ".") {
		mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
	}
	sign := strings.TrimPrefix(exponent[:1], "+")
	return mantissa + "e" + sign + strings.TrimLeft(exponent[1:], "0")
}

// Figure writes a value for reading: four digits, large ones with a unit.
func Figure(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "not finite"
	case v == 0:
		return "0"
	case abs >= 9999.5:
		return shortNumber(v)
	case abs < 1e-3:
		return scientific(strconv.FormatFloat(v, 'e', 2, 64))
	case v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		digits := 3 - int(math.Floor(math.Log10(abs)))
		return strconv.FormatFloat(v, 'f', min(max(digits, 0), 4), 64)
	}
}

// hovers cuts the plot into slices, each with the values of the point nearest
// to its middle.
func hovers(curves []curve, steps axis, unit string) []hover {
	var longest *Series
	for _, c := range curves {
		if longest == nil || len(c.series.Steps) > len(longest.Steps) {
			longest = c.series
		}
	}
	if longest == nil || len(longest.Steps) == 0 {
		return nil
	}
	n := len(longest.Steps)
	var at []int64
	buckets(n, hoverSlices, func(from, to int) { at = append(at, longest.Steps[(from+to-1)/2]) })
	at = slices.Compact(at)
	var out []hover
	left := 0.0
	for i, step := range at {
		right := float64(boxW)
		if i+1 < len(at) {
			right = (steps.x(float64(step)) + steps.x(float64(at[i+1]))) / 2
		}
		from, to := span(at, i)
		text := fmt.Sprintf("step %d", step)
		for _, c := range curves {
			if v, found := nearestValue(c.series, step, from, to); found {
				text += fmt.Sprintf("\n%s %s", c.Name, withUnit(v, unit))
				if c.smooth != nil {
					if v, found := nearestValue(c.smooth, step, math.MinInt64, math.MaxInt64); found {
						text += fmt.Sprintf(", smoothed %s", withUnit(v, unit))
					}
				}
			}
		}
		out = append(out, hover{X: coord(left), W: coord(right - left), Text: text})
		left = right
	}
	return out
}

// span is the range of steps nearer to at[i] than to its neighbours.
func span(at []int64, i int) (from, to int64) {
	from, to = math.MinInt64, math.MaxInt64
	if i > 0 {
		from = at[i-1] + (at[i]-at[i-1])/2
	}
	if i+1 < len(at) {
		to = at[i] + (at[i+1]-at[i])/2
	}
	return from, to
}

// nearestValue is the value at the step nearest to the one given, if it lies
// within from and to. Steps grow.
func nearestValue(s *Series, step, from, to int64) (float64, bool) {
	i, _ := slices.BinarySearch(s.Steps, step)
	best := -1
	for _, j := range []int{i - 1, i} {
		if j < 0 || j >= len(s.Steps) || s.Steps[j] < from || s.Steps[j] > to {
			continue
		}
		if best < 0 || distance(s.Steps[j], step) < distance(s.Steps[best], step) {
			best = j
		}
	}
	if best < 0 {
		return 0, false
	}
	return s.Values[best], true
}

func distance(a, b int64) int64 { return max(a-b, b-a) }

// alt says what a plot shows.
func alt(p Plot, curves []curve) string {
	var parts []string
	for _, c := range curves {
		s := c.series
		if len(s.Steps) == 0 {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s from %s at step %d to %s at step %d",
			c.Name, withUnit(s.Values[0], p.Unit), s.Steps[0], c.Last, s.Steps[len(s.Steps)-1]))
	}
	for _, l := range p.Levels {
		parts = append(parts, fmt.Sprintf("%s at %s", l.Name, withUnit(l.Value, p.Unit)))
	}
	return p.Title + ": " + strings.Join(parts, "; ")
}
