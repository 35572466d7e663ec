package config

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Changes names what differs between two configurations, in the order of the reference: keys such as server.log.level, whole providers, and how many
// routes. It tells no values. What the files hold that both name is not compared.
func Changes(before, after *Config) []string {
	var changes []string
	changed(&changes, "", reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem())
	return changes
}

// changed walks over the keys of two structs, and of those in them.
func changed(changes *[]string, path string, before, after reflect.Value) {
	for i := range before.NumField() {
		key := before.Type().Field(i).Tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		at, a, b := join(path, key), before.Field(i), after.Field(i)
		switch x := a.Interface().(type) {
		case Providers:
			*changes = append(*changes, changedProviders(at, x, b.Interface().(Providers))...)
			continue
		case []Route:
			*changes = append(*changes, changedRoutes(at, x, b.Interface().([]Route))...)
			continue
		case Secret:
		default:
			if a.Kind() == reflect.Struct && !isText(a.Type()) {
				changed(changes, at, a, b)
				continue
			}
		}
		if !same(a, b) {
			*changes = append(*changes, at)
		}
	}
}

func changedProviders(path string, before, after Providers) (changes []string) {
	for _, p := range after {
		i := slices.IndexFunc(before, func(old Provider) bool { return old.Name == p.Name })
		if i < 0 || !same(reflect.ValueOf(before[i]), reflect.ValueOf(p)) {
			changes = append(changes, join(path, p.Name))
		}
	}
	for _, old := range before {
		if !slices.ContainsFunc(after, func(p Provider) bool { return p.Name == old.Name }) {
			changes = append(changes, join(path, old.Name))
		}
	}
	if changes == nil && !slices.EqualFunc(before, after, func(a, b Provider) bool { return a.Name == b.Name }) {
		return []string{path} // their order names their cookies
	}
	return changes
}

// changedRoutes counts routes. The same host, path and methods are the same route.
func changedRoutes(path string, before, after []Route) []string {
	type place struct{ host, path, methods string }
	placeOf := func(r *Route) place { return place{r.Host, r.Path, strings.Join(r.Methods, " ")} }
	old := make(map[place]*Route, len(before))
	for i := range before {
		old[placeOf(&before[i])] = &before[i]
	}
	var added, altered int
	for i := range after {
		r := &after[i]
		at := placeOf(r)
		was := old[at]
		delete(old, at)
		switch {
		case was == nil:
			added++
		case !same(reflect.ValueOf(was), reflect.ValueOf(r)):
			altered++
		}
	}
	if added+altered+len(old) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s (%d added, %d changed, %d removed)", path, added, altered, len(old))}
}

// same compares values. Secrets are the same when they are in the same file, or written out alike.
func same(a, b reflect.Value) bool {
	switch a.Type() {
	case reflect.TypeFor[Secret]():
		return sameSecret(a.Interface().(Secret), b.Interface().(Secret))
	case reflect.TypeFor[*url.URL]():
		x, y := a.Interface().(*url.URL), b.Interface().(*url.URL)
		return x != nil && y != nil && *x == *y || reflect.DeepEqual(x, y) // the former is quicker, and cannot compare users and passwords
	}
	switch a.Kind() {
	case reflect.Pointer:
		return a.IsNil() == b.IsNil() && (a.IsNil() || same(a.Elem(), b.Elem()))
	case reflect.Struct:
		if isText(a.Type()) {
			return a.Equal(b)
		}
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() || a.IsNil() != b.IsNil() { // an empty list of groups lets nobody in
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		return reflect.DeepEqual(a.Interface(), b.Interface()) // they hold no secrets, which are functions
	}
	return a.Equal(b)
}

func sameSecret(a, b Secret) bool {
	if a.IsZero() || b.IsZero() || a.File() != "" || b.File() != "" {
		return a.IsZero() == b.IsZero() && a.File() == b.File()
	}
	x, _ := a.Value()
	y, _ := b.Value()
	return x == y
}
