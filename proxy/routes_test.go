package proxy

import "testing"

func tableOf(rows ...[3]string) *table {
	t := newTable()
	for _, r := range rows {
		rt := &route{name: r[0] + r[1] + r[2]}
		if r[2] != "" {
			rt.methods = []string{r[2]}
		}
		t.add(r[0], r[1], rt)
	}
	return t
}

func TestMostSpecificRouteWinsWhateverTheOrder(t *testing.T) {
	rows := [][3]string{
		{"", "/", ""}, {"", "/docs/", ""}, {"*.example.com", "/", ""}, {"*.b.example.com", "/", ""}, {"wiki.example.com", "/", ""},
		{"wiki.example.com", "/pay", ""}, {"wiki.example.com", "/pay", "GET"}, {"wiki.example.com", "/pay/slips/", ""},
	}
	wants := []struct{ host, path, method, want string }{
		{"wiki.example.com", "/", "GET", "wiki.example.com/"},
		{"WIKI.example.com:443", "/x", "GET", "wiki.example.com/"},
		{"wiki.example.com.", "/x", "GET", "wiki.example.com/"},
		{"wiki.example.com", "/pay", "GET", "wiki.example.com/payGET"},
		{"wiki.example.com", "/pay/", "GET", "wiki.example.com/payGET"},
		{"wiki.example.com", "/pay/1", "POST", "wiki.example.com/pay"},
		{"wiki.example.com", "/payroll", "GET", "wiki.example.com/"}, // A104: whole segments
		{"wiki.example.com", "/pay/slips", "GET", "wiki.example.com/pay/slips/"},
		{"wiki.example.com", "/pay/slips/2026/1", "GET", "wiki.example.com/pay/slips/"},
		{"wiki.example.com", "/docs/x", "GET", "wiki.example.com/"}, // host before path
		{"a.example.com", "/docs", "GET", "*.example.com/"},
		{"a.b.example.com", "/", "GET", "*.b.example.com/"},
		{"evilexample.com", "/docs/1", "GET", "/docs/"}, // dot boundary
		{"example.com", "/", "GET", "/"},
		{"[::1]:80", "/", "GET", "/"},
	}
	for turn := range len(rows) {
		table := tableOf(append(append([][3]string{}, rows[turn:]...), rows[:turn]...)...)
		for _, w := range wants {
			rt := table.match(w.host, w.path, w.method)
			if rt == nil || rt.name != w.want {
				t.Errorf("turn %d: %s %s%s → %v, want %s", turn, w.method, w.host, w.path, rt, w.want)
			}
		}
	}
}

func TestHostsAreUnknownOnlyWhereEveryRouteNamesOne(t *testing.T) {
	named := tableOf([3]string{"wiki.example.com", "/", ""}, [3]string{"*.apps.example.com", "/", ""})
	for host, want := range map[string]bool{"wiki.example.com": true, "x.apps.example.com": true, "apps.example.com": false, "evil.com": false, "": false} {
		if got := named.knowsHost(host); got != want {
			t.Errorf("knowsHost(%q) = %v, want %v", host, got, want)
		}
	}
	if rt := named.match("evil.com", "/", "GET"); rt != nil {
		t.Errorf("a foreign host reached %s", rt.name)
	}
	if !tableOf([3]string{"", "/x", ""}).knowsHost("anything") {
		t.Error("a route without host must match any")
	}
	if rt := tableOf([3]string{"", "/x", ""}).match("h", "/y", "GET"); rt != nil {
		t.Error("no route must be no route")
	}
}

// A102: HEAD asks what GET asks. It is no way around a rule about GET.
func TestA102_HeadFollowsTheRuleOfGet(t *testing.T) {
	guarded := tableOf([3]string{"", "/", ""}, [3]string{"", "/admin", "GET"}, [3]string{"", "/both", ""}, [3]string{"", "/both", "HEAD"}, [3]string{"", "/both", "GET"})
	for path, want := range map[string]string{"/admin/x": "/adminGET", "/both": "/bothHEAD", "/": "/"} {
		if rt := guarded.match("h", path, "HEAD"); rt == nil || rt.name != want {
			t.Errorf("HEAD %s → %v, want %s", path, rt, want)
		}
	}
}

func BenchmarkMatchAmong10000Routes(b *testing.B) {
	t := newTable()
	for i := range 10_000 {
		t.add("app"+string(rune('a'+i%26))+".example.com", "/p/"+string(rune('a'+i/400%26))+"/"+string(rune('0'+i%10)), &route{})
	}
	b.ReportAllocs()
	for b.Loop() {
		t.match("appq.example.com", "/p/c/6/some/deep/page", "GET")
	}
}

// A rule about GET of an application that folds case holds beside a route that names no method in another spelling.
func TestRoutesOfBothKindsOfCaseAreOneTable(t *testing.T) {
	table := newTable()
	table.add("", "/", &route{name: "root"})
	table.add("", "/Admin", &route{name: "plain"})
	table.add("", "/admin", &route{name: "folded", anyCase: true, methods: []string{"GET"}})
	table.add("", "/straße/Kelvin", &route{name: "letters", anyCase: true})
	for target, want := range map[[2]string]string{
		{"GET", "/Admin/x"}: "folded", {"HEAD", "/Admin"}: "folded", {"POST", "/Admin"}: "plain", {"GET", "/ADMIN"}: "folded", {"POST", "/ADMIN"}: "root",
		{"GET", "/STRAẞE/\u212Aelvin/x"}: "letters", {"GET", "/strasse/kelvin"}: "root",
	} {
		if rt := table.match("h", target[1], target[0]); rt == nil || rt.name != want {
			t.Errorf("%s %s → %v, want %s", target[0], target[1], rt, want)
		}
	}
}
