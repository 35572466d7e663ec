package proxy

import (
	"strings"

	"postern/config"
)

// cutPrefix takes a route's strip_prefix off a path, by whole segments: escapes may be in both, and every byte behind the prefix stays as
// the client sent it. It is false where the segments are not the prefix in every reading of them. The route has matched the path on the
// same readings, so that what was decided about and what is forwarded differ by the prefix alone.
func cutPrefix(rawPath, prefix string) (rest string, ok bool) {
	end := 0
	for range strings.Count(prefix, "/") {
		next := strings.IndexByte(rawPath[min(end+1, len(rawPath)):], '/')
		if next < 0 {
			end = len(rawPath)
			break
		}
		end += 1 + next
	}
	cut, folded := rawPath[:end], config.FoldPath(prefix) // the route has minded the case, if it does
	if config.FoldPath(canonicalPath(cut)) != folded || config.FoldPath(otherReading(cut)) != folded {
		return "", false
	}
	if end == len(rawPath) {
		return "/", true
	}
	return rawPath[end:], true
}
