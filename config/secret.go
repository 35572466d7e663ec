package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// maxSecretFile bounds what is read of a secret's file.
const maxSecretFile = 64 << 10

// settled is how old a file's change must be before an unchanged stat is believed to mean unchanged contents. A file
// that is written twice within one tick of the file system's clock looks the same both times.
const settled = 2 * time.Second

// hidden is what every way of printing a Secret shows.
const hidden = "[hidden]"

// Secret is a value that must not be seen: written in the file, taken from the environment, or held by a file of its
// own, which is read again when it changes. The zero Secret is absent.
//
// The value is reachable by [Secret.Value] alone. It is held by a function, so that printers which walk over unexported
// fields (fmt's %p, debuggers' dumpers) find nothing either.
type Secret struct {
	file   string
	reveal func() (string, error)
}

// NewSecret makes a Secret of a value.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{reveal: func() (string, error) { return value, nil }}
}

// NewSecretFile makes a Secret of a file's contents.
func NewSecretFile(path string) Secret { return newSecretFile(path, quote(path)) }

// newSecretFile calls the file by shown in errors: what the configuration says. Were the path made of a variable that
// holds the secret itself, by mistake, it would else be told.
func newSecretFile(path, shown string) Secret {
	f := &secretFile{path: path, shown: shown}
	return Secret{file: path, reveal: f.value}
}

// Value returns the secret. One that a file holds is read again when the file changed: its trailing newlines are
// dropped; missing, unreadable and empty files are errors, which name the file and never its contents.
func (s Secret) Value() (string, error) {
	if s.reveal == nil {
		return "", errors.New("no secret is set")
	}
	return s.reveal()
}

// IsZero tells whether no secret was given.
func (s Secret) IsZero() bool { return s.reveal == nil }

// File is the path of the file that holds the secret, if one does.
func (s Secret) File() string { return s.file }

// String never shows the secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// GoString never shows the secret.
func (s Secret) GoString() string { return "config.Secret{" + s.String() + "}" }

// Format never shows the secret, whatever the verb.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		io.WriteString(f, s.GoString())
		return
	}
	io.WriteString(f, s.String())
}

// MarshalText never shows the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON never shows the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML never shows the secret.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue never shows the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// secretFile remembers what it read until the file looks different.
type secretFile struct {
	path, shown string

	mu   sync.Mutex // guards what follows
	text string
	info fs.FileInfo // of the file that text came from; nil: nothing was read
	read time.Time   // when that was
}

func (f *secretFile) value() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path) // follows symlinks, so Kubernetes' swap of ..data shows as another inode
	if err == nil && f.unchanged(info) {
		return f.text, nil
	}
	now := time.Now()
	f.text, f.info = "", nil
	text, info, err := readSecret(f.path)
	if err != nil {
		return "", fmt.Errorf("the secret's file %s %w", f.shown, err)
	}
	f.text, f.info, f.read = text, info, now
	return text, nil
}

func (f *secretFile) unchanged(info fs.FileInfo) bool {
	return f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() &&
		f.info.ModTime().Equal(info.ModTime()) && f.read.Sub(info.ModTime()) > settled
}

// readSecret reads a secret's file, bounded, and stats what it opened rather than the path. Its errors do not name
// the file.
func readSecret(path string) (string, fs.FileInfo, error) {
	if info, err := os.Stat(path); err != nil {
		return "", nil, unreadableFile(err)
	} else if !info.Mode().IsRegular() { // opening a pipe could wait for ever
		return "", nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", nil, unreadableFile(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, unreadableFile(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", nil, unreadableFile(err)
	}
	if len(data) > maxSecretFile {
		return "", nil, errors.New("is larger than 64 KiB")
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return "", nil, errors.New("is empty")
	}
	return text, info, nil
}

// unreadableFile says what the system said, without the path.
func unreadableFile(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
