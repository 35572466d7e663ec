package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
)

// maxFile bounds the size of a configuration file.
const maxFile = 1 << 20

// LoadOptions are what [Load] takes from outside the file.
type LoadOptions struct {
	// LookupEnv finds environment variables; nil means [os.LookupEnv].
	LookupEnv func(string) (string, bool)
	// Listen, AdminListen and LogLevel replace what the file says when they are not empty (command-line flags).
	Listen, AdminListen, LogLevel string
}

// Load reads and checks the file at path. The error is [Problems], all of them. It reads no other file:
// [Config.CheckFiles] does.
func Load(path string, o LoadOptions) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, Problems{{File: path, What: fmt.Sprintf("cannot be read: %v", err), Mend: "Name the file with --config or POSTERN_CONFIG, and let Postern's user read it"}}
	}
	return Parse(path, data, o)
}

// readFile reads a little more than Parse accepts, so that Parse can say that it is too much.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Parse checks the contents of a file that is called name in problems. It does no I/O besides LookupEnv.
func Parse(name string, data []byte, o LoadOptions) (*Config, error) {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	d := &decoder{src: newSource(name), lookup: o.LookupEnv}
	root := d.parse(data)
	if root == nil {
		return nil, d.problems.sorted()
	}
	c := &Config{}
	setDefaults(reflect.ValueOf(c).Elem())
	c.src = d.src
	d.decode("", root, reflect.ValueOf(c).Elem(), field{})
	o.override(c)
	c.normalise()
	all := append(d.problems, c.validate()...).sorted()
	if errs := all.Errors(); len(errs) > 0 {
		return nil, all
	}
	c.Warnings = all.Warnings()
	return c, nil
}

// override lets flags win over the file. What they say is then checked like the file's.
func (o LoadOptions) override(c *Config) {
	for _, f := range []struct {
		path, value string
		to          *string
	}{
		{"server.listen", o.Listen, &c.Server.Listen},
		{"server.admin_listen", o.AdminListen, &c.Server.AdminListen},
		{"server.log.level", o.LogLevel, &c.Server.Log.Level},
	} {
		if f.value != "" {
			*f.to = f.value
			c.src.marks[f.path] = mark{text: f.value}
			delete(c.src.failed, f.path)
			delete(c.src.raw, f.path)
		}
	}
}
