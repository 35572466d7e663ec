package config

import "strings"

// nearest is the known word that a misspelt one most likely means, or "".
func nearest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	best, least := "", 1+max(1, len(word)/3)
	for _, k := range known {
		if plain(k) == plain(word) {
			return k
		}
		if n := distance(strings.ToLower(word), k); n < least {
			best, least = k, n
		}
	}
	return best
}

// plain makes idleTimeout, idle-timeout and idle_timeout the same.
func plain(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// distance counts the letters to insert, drop, change, or swap with their neighbour.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// keyList names a few keys of a section.
func keyList(keys []string) string {
	if len(keys) > 4 {
		return strings.Join(keys[:3], ", ") + " and so on"
	}
	return strings.Join(keys, ", ")
}
