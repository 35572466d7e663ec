package seal_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/session/seal"
)

func newRing(t testing.TB, keys ...[]byte) *seal.Ring {
	t.Helper()
	if len(keys) == 0 {
		keys = [][]byte{newKey(t)}
	}
	r, err := seal.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newKey(t testing.TB) []byte {
	t.Helper()
	key, err := seal.ParseKey(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustSeal(t testing.TB, r *seal.Ring, purpose, plaintext string) string {
	t.Helper()
	sealed, err := r.Seal(purpose, []byte(plaintext))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// wantInvalid wants ErrInvalid, and nothing of a plaintext beside it.
func wantInvalid(t *testing.T, what string, plaintext []byte, err error) {
	t.Helper()
	if !errors.Is(err, seal.ErrInvalid) || plaintext != nil {
		t.Errorf("%s: %q, %v, want invalid", what, plaintext, err)
	}
}

func TestSealAndOpen(t *testing.T) {
	r := newRing(t)
	for _, size := range []int{0, 1, 47, 48, 49, 1000, 2000} {
		plaintext := make([]byte, size)
		rand.Read(plaintext)
		given := bytes.Clone(plaintext)
		sealed, err := r.Seal("session", given)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(given, plaintext) {
			t.Error("Seal changed its argument")
		}
		if rest := strings.Trim(sealed, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"); rest != "" {
			t.Errorf("sealed text holds %q", rest)
		}
		got, key, err := r.Open("session", sealed, time.Hour)
		if err != nil || key != 0 || !bytes.Equal(got, plaintext) {
			t.Errorf("open %d bytes: %x, key %d, %v", size, got, key, err)
		}
	}
}

func TestSessionCookieIsSmall(t *testing.T) {
	if got := len(mustSeal(t, newRing(t), "session", strings.Repeat("x", 48))); got > 200 {
		t.Errorf("48 bytes become %d characters, want at most 200", got)
	}
}

func TestSealRefusesWhatNoCookieHolds(t *testing.T) {
	r := newRing(t)
	longest := 0
	for size := 1900; size < 2400; size++ {
		sealed, err := r.Seal("session", make([]byte, size))
		if err != nil {
			if !errors.Is(err, seal.ErrTooLong) {
				t.Fatal(err)
			}
			break
		}
		if len(sealed) > seal.MaxSealed {
			t.Fatalf("%d bytes become %d characters", size, len(sealed))
		}
		if _, _, err := r.Open("session", sealed, time.Hour); err != nil {
			t.Fatalf("open %d bytes: %v", size, err)
		}
		longest = size
	}
	if longest < 2000 || longest > 2300 {
		t.Errorf("the longest value has %d bytes", longest)
	}
}

// A flipped bit, a character less or more, other case: none may open (CVE-2026-47775 was an oracle on exactly such cookies).
func TestOpenRefusesEveryChange(t *testing.T) {
	r := newRing(t)
	for _, size := range []int{1, 2, 3, 48} { // all paddings
		sealed := mustSeal(t, r, "session", strings.Repeat("x", size))
		for i := range len(sealed) {
			for bit := range 8 {
				changed := []byte(sealed)
				changed[i] ^= 1 << bit
				got, _, err := r.Open("session", string(changed), time.Hour)
				wantInvalid(t, fmt.Sprintf("bit %d of character %d", bit, i), got, err)
			}
			got, _, err := r.Open("session", sealed[:i], time.Hour)
			wantInvalid(t, fmt.Sprint("cut to ", i), got, err)
			got, _, err = r.Open("session", sealed[i+1:], time.Hour)
			wantInvalid(t, fmt.Sprint("begun at ", i+1), got, err)
		}
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		for _, c := range alphabet {
			if last := sealed[:len(sealed)-1] + string(c); last != sealed {
				got, _, err := r.Open("session", last, time.Hour)
				wantInvalid(t, "another last character", got, err)
			}
		}
		for _, other := range []string{"", "=", "==", "a", "\n", "\r\n", "\n\n\n\n", " ", "\x00", "%3D"} {
			for _, changed := range []string{sealed + other, other + sealed, sealed[:9] + other + sealed[9:]} {
				if changed == sealed {
					continue
				}
				got, _, err := r.Open("session", changed, time.Hour)
				wantInvalid(t, fmt.Sprintf("with %q", other), got, err)
			}
		}
		got, _, err := r.Open("session", sealed+sealed, time.Hour)
		wantInvalid(t, "twice", got, err)
	}
}

func TestOpenRefusesOtherPurpose(t *testing.T) {
	r := newRing(t)
	sealed := mustSeal(t, r, "attempt", "x")
	bound := r.SealBytes("attempt", []byte("x"), nil)
	for _, purpose := range []string{"session", "attempt ", "Attempt", "", "attempt|", "attempt\x00"} {
		got, _, err := r.Open(purpose, sealed, time.Hour)
		wantInvalid(t, purpose, got, err)
		got, _, err = r.OpenBytes(purpose, bound, nil)
		wantInvalid(t, purpose, got, err)
		if bytes.Equal(r.MAC(purpose, "x")[0], r.MAC("attempt", "x")[0]) {
			t.Errorf("MACs for attempt and %q are the same", purpose)
		}
	}
	// securecookie joins name, time and value with bars.
	bar := mustSeal(t, r, "a|1", "x")
	got, _, err := r.Open("a", bar, time.Hour)
	wantInvalid(t, "a purpose that looks like two fields", got, err)
}

func TestOpenRefusesOtherDeployment(t *testing.T) {
	a, b := newRing(t), newRing(t)
	got, _, err := b.Open("session", mustSeal(t, a, "session", "x"), time.Hour)
	wantInvalid(t, "another ring's cookie", got, err)
	got, _, err = b.OpenBytes("index", a.SealBytes("index", []byte("x"), nil), nil)
	wantInvalid(t, "another ring's bytes", got, err)
}

func TestOldKeyOpensUntilRemoved(t *testing.T) {
	oldest, old, current := newKey(t), newKey(t), newKey(t)
	before := newRing(t, old, oldest)
	sealed := mustSeal(t, before, "session", "x")
	bound := before.SealBytes("index", []byte("x"), []byte("place"))

	rotated := newRing(t, current, old, oldest)
	got, key, err := rotated.Open("session", sealed, time.Hour)
	if string(got) != "x" || key != 1 || err != nil {
		t.Errorf("open after rotation: %q, key %d, %v, want key 1", got, key, err)
	}
	got, key, err = rotated.OpenBytes("index", bound, []byte("place"))
	if string(got) != "x" || key != 1 || err != nil {
		t.Errorf("open bytes after rotation: %q, key %d, %v, want key 1", got, key, err)
	}
	if _, key, err := rotated.Open("session", mustSeal(t, rotated, "session", "x"), time.Hour); key != 0 || err != nil {
		t.Errorf("sealed under key %d, %v, want the first", key, err)
	}
	if macs := rotated.MAC("index", "user"); len(macs) != 3 || !bytes.Equal(macs[1], before.MAC("index", "user")[0]) {
		t.Error("the MAC of before is not among those after")
	}

	removed := newRing(t, current)
	got, _, err = removed.Open("session", sealed, time.Hour)
	wantInvalid(t, "open after removal", got, err)
	got, _, err = removed.OpenBytes("index", bound, []byte("place"))
	wantInvalid(t, "open bytes after removal", got, err)
}

func TestOpenJudgesAge(t *testing.T) {
	base := time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
	at := func(d time.Duration) func() time.Time { return func() time.Time { return base.Add(d) } }
	r := newRing(t).WithNow(at(0))
	sealed := mustSeal(t, r, "session", "x")
	for _, c := range []struct {
		after, maxAge time.Duration
		want          error
	}{
		{0, time.Hour, nil},
		{59 * time.Minute, time.Hour, nil},
		{time.Hour + time.Second, time.Hour, seal.ErrExpired},
		{100 * 365 * 24 * time.Hour, time.Hour, seal.ErrExpired},
		{time.Second, 0, seal.ErrExpired},
		{time.Second, -time.Hour, seal.ErrExpired},
		{-4 * time.Minute, time.Hour, nil}, // clocks of replicas differ
		{-6 * time.Minute, time.Hour, seal.ErrInvalid},
		{-24 * time.Hour, time.Hour, seal.ErrInvalid},
	} {
		got, _, err := r.WithNow(at(c.after)).Open("session", sealed, c.maxAge)
		if !errors.Is(err, c.want) || (err != nil) != (got == nil) {
			t.Errorf("%v after sealing, at most %v: %q, %v, want %v", c.after, c.maxAge, got, err, c.want)
		}
	}
	// Only who can prove that it was ours learns that it is old.
	got, _, err := newRing(t).WithNow(at(2*time.Hour)).Open("session", sealed, time.Hour)
	wantInvalid(t, "an old cookie of somebody else", got, err)
}

// A nonce that repeats gives AES-GCM away (mod_auth_openidc had a constant one, CVE-2021-32791).
func TestNoncesAreUnique(t *testing.T) {
	const n = 100_000
	var key [seal.KeySize]byte
	rand.Read(key[:])
	r := newRing(t)
	seen := make(map[string]bool, 2*n)
	for range n {
		sealed, err := seal.Encrypt(&key, []byte("same"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, nonce := range []string{string(sealed[1:13]), string(r.SealBytes("index", []byte("same"), nil)[1:13])} {
			if seen[nonce] {
				t.Fatalf("nonce %x came twice", nonce)
			}
			seen[nonce] = true
		}
	}
	texts := make(map[string]bool, n/10)
	for range n / 10 {
		sealed := mustSeal(t, r, "session", "same")
		if texts[sealed] {
			t.Fatal("the same text came twice")
		}
		texts[sealed] = true
	}
}

func TestDecryptRefusesEveryChange(t *testing.T) {
	var key, other [seal.KeySize]byte
	rand.Read(key[:])
	rand.Read(other[:])
	r := newRing(t)
	sealed, err := seal.Encrypt(&key, []byte("token"), []byte("place 1"))
	if err != nil {
		t.Fatal(err)
	}
	bound := r.SealBytes("index", []byte("token"), []byte("place 1"))
	open := func(sealed, bound, aad []byte) {
		t.Helper()
		got, err := seal.Decrypt(&key, sealed, aad)
		wantInvalid(t, "decrypt", got, err)
		got, _, err = r.OpenBytes("index", bound, aad)
		wantInvalid(t, "open bytes", got, err)
	}
	place := []byte("place 1")
	for i := range sealed {
		for bit := range 8 {
			a, b := bytes.Clone(sealed), bytes.Clone(bound)
			a[i] ^= 1 << bit
			b[i] ^= 1 << bit
			open(a, b, place)
		}
		open(sealed[:i], bound[:i], place)
	}
	open(append(bytes.Clone(sealed), 0), append(bytes.Clone(bound), 0), place)
	// Two values of one store, swapped.
	for _, aad := range []string{"place 2", "place 1 ", "place", ""} {
		open(sealed, bound, []byte(aad))
	}
	got, err := seal.Decrypt(&other, sealed, place)
	wantInvalid(t, "another key", got, err)

	if got, err := seal.Decrypt(&key, sealed, place); string(got) != "token" || err != nil {
		t.Errorf("decrypt: %q, %v", got, err)
	}
	if got, _, err := r.OpenBytes("index", bound, place); string(got) != "token" || err != nil {
		t.Errorf("open bytes: %q, %v", got, err)
	}
	if bytes.Contains(sealed, []byte("token")) || bytes.Contains(bound, []byte("token")) {
		t.Error("the plaintext shows")
	}
}

// Undelimited parts let a client shift bytes from one to the next (CVE-2023-35941, Envoy).
func TestMACTellsPartsApart(t *testing.T) {
	r := newRing(t)
	seen := map[string]string{}
	for _, parts := range [][]string{
		{}, {""}, {"", ""}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}, {"", "abc"}, {"a", "b", "c"},
		{"\x00\x00\x00\x00\x00\x00\x00\x01a"}, {"a\x00\x00\x00\x00\x00\x00\x00\x01b"},
	} {
		mac := string(r.MAC("index", parts...)[0])
		if before, ok := seen[mac]; ok {
			t.Errorf("%q has the MAC of %s", parts, before)
		}
		seen[mac] = fmt.Sprintf("%q", parts)
		if len(mac) != 32 {
			t.Errorf("MAC has %d bytes", len(mac))
		}
		if !bytes.Equal(r.MAC("index", parts...)[0], []byte(mac)) {
			t.Errorf("MAC of %q is not steady", parts)
		}
	}
}

// What is sealed today must open after an upgrade: these were made by the first release.
func TestFormatIsStable(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i * 37)
	}
	r := newRing(t, key)
	if got, want := hex.EncodeToString(r.MAC("index", "user", "alice")[0]), goldenMAC; got != want {
		t.Errorf("MAC is %s, want %s", got, want)
	}
	then := r.WithNow(func() time.Time { return time.Unix(1_795_000_000, 0) })
	if got, _, err := then.Open("session", goldenText, time.Minute); string(got) != "hello" || err != nil {
		t.Errorf("open: %q, %v", got, err)
	}
	bound, _ := base64.StdEncoding.DecodeString(goldenBytes)
	if got, _, err := r.OpenBytes("index", bound, []byte("place")); string(got) != "hello" || err != nil {
		t.Errorf("open bytes: %q, %v", got, err)
	}
	encrypted, _ := base64.StdEncoding.DecodeString(goldenEncrypted)
	if got, err := seal.Decrypt((*[32]byte)(key), encrypted, []byte("place")); string(got) != "hello" || err != nil {
		t.Errorf("decrypt: %q, %v", got, err)
	}
}

func TestParseKey(t *testing.T) {
	raw := newKey(t)
	for _, s := range []string{
		base64.StdEncoding.EncodeToString(raw), base64.RawStdEncoding.EncodeToString(raw),
		base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
	} {
		if got, err := seal.ParseKey(s); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%v", err)
		}
	}
	for range 1000 {
		if _, err := seal.ParseKey(seal.NewKey()); err != nil {
			t.Fatal(err)
		}
	}
	b64 := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	counting := make([]byte, 32)
	for i := range counting {
		counting[i] = byte(200 + 3*i)
	}
	for name, s := range map[string]string{
		"empty":       "",
		"words":       "change me please, this is not a key!",
		"short":       b64(raw[:31]),
		"half":        b64(raw[:16]),
		"long":        b64(append(bytes.Clone(raw), 1)),
		"hex":         hex.EncodeToString(raw),
		"zeros":       b64(make([]byte, 32)),
		"same":        b64(bytes.Repeat([]byte{0xa7}, 32)),
		"counting":    b64(counting),
		"repetition":  b64(bytes.Repeat(raw[:16], 2)),
		"text inside": b64([]byte("abcdefghijklmnopqrstuvwxyz012345")),
		"line break":  b64(raw)[:20] + "\n" + b64(raw)[20:],
		"space":       b64(raw) + " ",
		"bits beyond": strings.TrimRight(b64(raw), "=") + "AAAA",
	} {
		got, err := seal.ParseKey(s)
		if err == nil || got != nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if len(s) > 8 && strings.Contains(err.Error(), s[:8]) {
			t.Errorf("%s: error shows the key: %v", name, err)
		}
	}
}

func TestNewRingRefuses(t *testing.T) {
	key := newKey(t)
	for name, keys := range map[string][][]byte{
		"none": {}, "short": {key[:16]}, "long": {append(bytes.Clone(key), 0)}, "empty": {{}}, "twice": {key, newKey(t), bytes.Clone(key)},
	} {
		if _, err := seal.NewRing(keys...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRingKeepsItsOwnKeys(t *testing.T) {
	key := newKey(t)
	r := newRing(t, key)
	clear(key)
	before := r.MAC("later", "x")[0]
	if bytes.Equal(before, newRing(t, make([]byte, 32)).MAC("later", "x")[0]) {
		t.Error("the ring uses the caller's slice")
	}
}

func TestRingNeverPrintsKeys(t *testing.T) {
	key := newKey(t)
	r := newRing(t, key)
	r.MAC("index", "x") // derives keys
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, out := range []string{fmt.Sprintf(verb, r), fmt.Sprintf(verb, struct{ R *seal.Ring }{r})} {
			if !strings.Contains(out, "seal.Ring(1 keys)") {
				t.Errorf("%s prints %s", verb, out)
			}
		}
	}
}

func TestRingIsSafeForConcurrentUse(t *testing.T) {
	r := newRing(t, newKey(t), newKey(t))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 { // more purposes than are remembered
				purpose := fmt.Sprint("purpose ", (i+j)%90)
				got, _, err := r.Open(purpose, mustSeal(t, r, purpose, purpose), time.Hour)
				if string(got) != purpose || err != nil {
					t.Errorf("%s: %q, %v", purpose, got, err)
				}
				if macs := r.MAC(purpose, "x"); !slices.EqualFunc(macs, r.MAC(purpose, "x"), bytes.Equal) {
					t.Errorf("%s: the MAC changed", purpose)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzOpenNeverPanics(f *testing.F) {
	r := newRing(f, newKey(f), newKey(f))
	f.Add("session", mustSeal(f, r, "session", "x"), []byte("aad"))
	f.Add("", "", []byte(nil))
	f.Add("session", "MTc5NTAwMDAwMHw=", []byte{1})
	f.Add("index", string(r.SealBytes("index", []byte("x"), nil)), []byte{})
	var key [seal.KeySize]byte
	f.Fuzz(func(t *testing.T, purpose, sealed string, aad []byte) {
		if got, _, err := r.Open(purpose, sealed, time.Hour); err == nil && string(got) != "x" {
			t.Errorf("a forged value opens: %q", got)
		}
		r.OpenBytes(purpose, []byte(sealed), aad)
		if got, err := seal.Decrypt(&key, []byte(sealed), aad); err == nil {
			t.Errorf("a forged value decrypts: %q", got)
		}
		seal.ParseKey(sealed)
		again := mustSealShort(t, r, purpose, sealed)
		if again == "" {
			return
		}
		if got, _, err := r.Open(purpose, again, time.Hour); err != nil || string(got) != sealed {
			t.Errorf("what was sealed opens as %q, %v", got, err)
		}
	})
}

// mustSealShort seals what fits, else it returns "".
func mustSealShort(t *testing.T, r *seal.Ring, purpose, plaintext string) string {
	sealed, err := r.Seal(purpose, []byte(plaintext))
	if err != nil && !errors.Is(err, seal.ErrTooLong) {
		t.Error(err)
	}
	return sealed
}

func BenchmarkOpen(b *testing.B) {
	for n := 1; n <= 3; n += 2 {
		b.Run(fmt.Sprint("under key ", n), func(b *testing.B) {
			keys := make([][]byte, n)
			for i := range keys {
				keys[i] = newKey(b)
			}
			sealed := mustSeal(b, newRing(b, keys[n-1]), "session", strings.Repeat("x", 48))
			r := newRing(b, keys...)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := r.Open("session", sealed, time.Hour); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecrypt(b *testing.B) {
	var key [seal.KeySize]byte
	sealed, err := seal.Encrypt(&key, make([]byte, 3000), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := seal.Decrypt(&key, sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// Keys are replaced while requests are under way: whoever seals and opens meanwhile sees one ring or the other, never half of each.
func TestAdoptTakesTheKeysOfAnotherRing(t *testing.T) {
	a, b := newKey(t), newKey(t)
	r, other := newRing(t, a), newRing(t, b, a)
	if !r.Adopt(other) || r.Adopt(other) || r.Keys() != 2 {
		t.Errorf("%d keys", r.Keys())
	}
	sealed := mustSeal(t, r, "session", "x")
	if got, key, err := other.Open("session", sealed, time.Hour); string(got) != "x" || key != 0 || err != nil {
		t.Errorf("the first key does not seal: %q %d %v", got, key, err)
	}
	if r.Adopt(r) {
		t.Error("its own keys are others")
	}
}

func TestReplaceWhileInUse(t *testing.T) {
	a, b := newKey(t), newKey(t)
	r := newRing(t, a)
	later := r.WithNow(time.Now) // made before, and follows
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				sealed, err := later.Seal("session", []byte("x"))
				if err != nil {
					t.Error(err)
					return
				}
				if got, _, err := r.Open("session", sealed, time.Hour); string(got) != "x" || err != nil {
					t.Errorf("open: %q, %v", got, err)
					return
				}
				if n := len(later.MAC("index", "x")); n < 1 || n > 2 {
					t.Errorf("%d MACs", n)
					return
				}
			}
		})
	}
	old := mustSeal(t, r, "session", "old")
	for range 200 { // a stays in all of them
		for _, keys := range [][][]byte{{a, b}, {b, a}, {a, b}, {a, b}} {
			if err := r.Replace(keys...); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	before := r.Generation()
	if err := r.Replace(a, b); err != nil || r.Generation() != before {
		t.Errorf("the same keys: %v, generation %d, want %d", err, r.Generation(), before)
	}
	for name, keys := range map[string][][]byte{"none": {}, "short": {a[:16]}, "twice": {b, b}} {
		if err := r.Replace(keys...); err == nil || r.Generation() != before || r.Keys() != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, key, err := later.Open("session", old, time.Hour); key != 0 || err != nil {
		t.Errorf("key %d, %v", key, err)
	}
	if err := r.Replace(b); err != nil || r.Generation() == before || later.Keys() != 1 {
		t.Error(err)
	}
	got, _, err := later.Open("session", old, time.Hour)
	wantInvalid(t, "a removed key's", got, err)
}
