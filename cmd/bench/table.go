package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// print prints medians over the rounds. Ratios are taken to the bare proxy of the same round, before the median.
func (all results) print(out io.Writer) error {
	bare := all.named(bareRow)
	if bare == nil {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\treq/s\t÷ bare\tp50 ms\tp99 ms\tCPU s/100k\t÷ bare\tmin–max\tRedis s/100k\tRSS MiB\t")
	for _, r := range all {
		value := func(of func(measurement) float64) float64 {
			var vs []float64
			for _, m := range r.rounds {
				vs = append(vs, of(m))
			}
			return median(vs)
		}
		perSecond := func(m measurement) float64 { return m.perSecond }
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.1f\t%.1f\t", r.name, value(perSecond),
			median(compare(r, bare, func(m, bare measurement) float64 { return m.perSecond / bare.perSecond })),
			value(func(m measurement) float64 { return m.p50.Seconds() * 1000 }), value(func(m measurement) float64 { return m.p99.Seconds() * 1000 }))
		if r.proxy == nil {
			fmt.Fprintln(w, "–\t–\t–\t–\t–\t")
			continue
		}
		ratios := compare(r, bare, cpuRatio)
		fmt.Fprintf(w, "%.2f\t%.2f\t%.2f–%.2f\t%.2f\t%.0f\t\n", value(func(m measurement) float64 { return m.cpu }),
			median(ratios), slices.Min(ratios), slices.Max(ratios),
			value(func(m measurement) float64 { return m.redis }), value(func(m measurement) float64 { return m.memory }))
	}
	return w.Flush()
}

// A line is one line of the second table: a promise and what was measured of it.
type line struct{ what, atMost, measured string }

func printLines(out io.Writer, lines []line) error {
	if len(lines) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\n\tat most\tmeasured")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%s\n", l.what, l.atMost, l.measured)
	}
	return w.Flush()
}

func (all results) named(name string) *result {
	if i := slices.IndexFunc(all, func(r *result) bool { return r.name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// compare computes something of two rows in each round.
func compare(r, other *result, of func(m, other measurement) float64) (vs []float64) {
	for i, m := range r.rounds {
		vs = append(vs, of(m, other.rounds[i]))
	}
	return vs
}

func cpuRatio(m, other measurement) float64 { return m.cpu / other.cpu }

// spread is the median of values with the least and the greatest.
func spread(format string, vs []float64) string {
	return fmt.Sprintf(format+" ("+format+" to "+format+")", median(vs), slices.Min(vs), slices.Max(vs))
}

// median of values; zero when there are none.
func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	if n := len(vs); n%2 == 0 {
		return (vs[n/2-1] + vs[n/2]) / 2
	}
	return vs[len(vs)/2]
}
