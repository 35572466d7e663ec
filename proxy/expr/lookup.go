package expr

import "strings"

// Lookup follows a path through claims: the names of members with dots between them. A name may hold dots itself; the longest that is
// there counts, so that https://example.com/groups is found. Through a list it collects what is found in each of its objects. Nil
// where there is nothing.
func Lookup(c map[string]any, path string) any {
	if v := c[path]; v != nil {
		return v
	}
	for i := strings.LastIndexByte(path, '.'); i > 0; i = strings.LastIndexByte(path[:i], '.') {
		switch v := c[path[:i]].(type) {
		case nil:
			continue
		case map[string]any:
			return Lookup(v, path[i+1:])
		case []any:
			return collect(v, path[i+1:])
		}
		return nil
	}
	return nil
}

// collect follows a path from each object of a list. Nil where none has it.
func collect(list []any, path string) any {
	var all []any
	for _, e := range list {
		object, ok := e.(map[string]any)
		if !ok {
			continue
		}
		switch v := Lookup(object, path).(type) {
		case nil:
		case []any:
			all = append(all, v...)
		default:
			all = append(all, v)
		}
	}
	if all == nil {
		return nil
	}
	return all
}
