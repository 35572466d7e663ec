package main

import "context"

// figures are measured once each, after the rows.
var figures = []struct {
	name    string
	slow    bool // --quick leaves it out
	measure func(*stack, context.Context) ([]line, error)
}{
	{name: "half of peak load", measure: (*stack).halfOfPeak},
	{name: "memory of many sessions", measure: (*stack).cacheMany},
	{name: "start, idle memory and size", measure: (*stack).startSeveral},
	{name: "large bodies", measure: (*stack).sendLargeBodies},
	{name: "open WebSockets", measure: (*stack).openSockets},
	{name: "reload", measure: (*stack).reload},
	// It compiles the tests.
	{name: "allocations", slow: true, measure: (*stack).countAllocations},
}
