package main

// rowTargets are what the rows are held against: the CPU time of a request, as a multiple of the bare proxy's.
var rowTargets = []struct {
	row, atMost string
	above       string // the row whose multiple is taken off; "" takes nothing off
	over        string // the row that takes the bare proxy's place
}{
	{row: signedInRow, atMost: "1.00 ×"},
	{row: cacheOffRow, atMost: "1.90 ×"},
	{row: publicRow, atMost: "0.95 ×"},
	{row: loggedRow, above: signedInRow, atMost: "+0.08 ×"},
	{row: scrapedRow, above: signedInRow, atMost: "+0.03 ×"},
	{row: crowdRow, atMost: "1.20 ×"},
	{row: calmCrowdRow, atMost: "1.20 ×"},
	{row: rulesRow, above: signedInRow, atMost: "+0.05 ×"},
	{row: signedInRow, over: oauth2ProxyRow, atMost: "0.20 ×"},
}

// lines holds the rows that were measured against their targets.
func (all results) lines() (lines []line) {
	bare := all.named(bareRow)
	for _, t := range rowTargets {
		r := all.named(t.row)
		switch {
		case r == nil: // not measured
		case t.above != "":
			if than := all.named(t.above); than != nil {
				more := compare(r, bare, cpuRatio)
				for i, ratio := range compare(than, bare, cpuRatio) {
					more[i] -= ratio
				}
				lines = append(lines, line{"CPU: " + r.name + ", above " + than.name, t.atMost, spread("%+.2f", more)})
			}
		case t.over != "":
			if other := all.named(t.over); other != nil {
				lines = append(lines, line{"CPU: " + r.name + ", of " + other.name, t.atMost, spread("%.2f", compare(r, other, cpuRatio))})
			}
		default:
			lines = append(lines, line{"CPU: " + r.name, t.atMost, spread("%.2f", compare(r, bare, cpuRatio))})
		}
	}
	return lines
}
