package storetest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"postern/session"
)

func mustKeep(t *testing.T, h Harness, key, value string) {
	t.Helper()
	if err := h.Keep(t.Context(), key, []byte(value), time.Hour, 1<<30); err != nil {
		t.Fatalf("keep %s: %v", key, err)
	}
}

func wantKept(t *testing.T, h Harness, key, want string) {
	t.Helper()
	if value, err := h.Kept(t.Context(), key); string(value) != want || err != nil {
		t.Errorf("kept under %s: %d bytes, %v, want %d", key, len(value), err, len(want))
	}
}

func wantNotKept(t *testing.T, h Harness, key string, want error) {
	t.Helper()
	_, err := h.Kept(t.Context(), key)
	wantErr(t, "kept", err, want)
	wantErr(t, "take kept", h.TakeKept(t.Context(), key), want)
}

func keep(t *testing.T, h Harness) {
	wantNotKept(t, h, "k", session.ErrNone)
	mustCreate(t, h, "k")
	large := string(bytes.Repeat([]byte{0, 1, 0xff, '\n'}, 10<<18)) // 10 MiB
	mustKeep(t, h, "k", large)
	mustKeep(t, h, "other", "")
	wantKept(t, h, "k", large)
	wantKept(t, h, "k", large)
	wantKept(t, h, "other", "")
	wantErr(t, "take kept", h.TakeKept(t.Context(), "k"), nil)
	wantNotKept(t, h, "k", session.ErrConflict)
	wantKept(t, h, "other", "")
	wantRecord(t, mustGet(t, h, "k"), record("sealed")) // the session of the same key is another matter
	if err := h.Keep(t.Context(), "k", nil, 0, 1<<30); err == nil {
		t.Error("kept without a time to live")
	}
}

func keepReplaces(t *testing.T, h Harness) {
	mustKeep(t, h, "k", "first")
	mustKeep(t, h, "k", "second")
	wantKept(t, h, "k", "second")
	wantErr(t, "take kept", h.TakeKept(t.Context(), "k"), nil)
	mustKeep(t, h, "k", "third")
	wantKept(t, h, "k", "third")
}

func keepExpires(t *testing.T, h Harness) {
	for _, key := range []string{"k", "taken"} {
		if err := h.Keep(t.Context(), key, []byte("x"), h.Short, 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, "take kept", h.TakeKept(t.Context(), "taken"), nil)
	h.Pass(h.Short)
	for _, key := range []string{"k", "taken"} {
		eventually(t, "what was kept is gone", func() bool {
			_, err := h.Kept(t.Context(), key)
			return errors.Is(err, session.ErrNone)
		})
		wantNotKept(t, h, key, session.ErrNone)
	}
}

func takeKeptRace(t *testing.T, h Harness) {
	mustKeep(t, h, "k", "x")
	won := race(30, func(int) bool {
		err := h.TakeKept(t.Context(), "k")
		if err != nil {
			wantErr(t, "take kept", err, session.ErrConflict)
		}
		return err == nil
	})
	if won != 1 {
		t.Errorf("%d of 30 took it", won)
	}
}

func keepTotal(t *testing.T, h Harness) {
	const total = 4 * session.KeptLeast
	try := func(key string, size int, ttl time.Duration, want error) {
		t.Helper()
		wantErr(t, "keep "+key, h.Keep(t.Context(), key, make([]byte, size), ttl, total), want)
	}
	try("too large", total+1, time.Hour, session.ErrFull)
	try("a", 2*session.KeptLeast, time.Hour, nil)
	try("b", 1, time.Hour, nil) // small ones count as well
	try("c", 2*session.KeptLeast, time.Hour, session.ErrFull)
	try("a", 3*session.KeptLeast, time.Hour, nil) // in place of itself
	try("c", 1, time.Hour, session.ErrFull)
	wantNotKept(t, h, "c", session.ErrNone)
	wantErr(t, "take kept", h.TakeKept(t.Context(), "a"), nil)
	try("c", 3*session.KeptLeast, h.Short, nil)
	try("d", 1, time.Hour, session.ErrFull)
	h.Pass(h.Short)
	eventually(t, "what has expired counts no more", func() bool {
		return h.Keep(t.Context(), "d", nil, time.Hour, total) == nil
	})

	won := race(30, func(i int) bool {
		err := h.Keep(t.Context(), string(rune('e'+i)), nil, time.Hour, total)
		if err != nil {
			wantErr(t, "keep", err, session.ErrFull)
		}
		return err == nil
	})
	if won != 2 {
		t.Errorf("%d of 30 found room for 2", won)
	}
}
