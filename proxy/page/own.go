package page

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/html"
	"golang.org/x/text/language"
)

// Bounds on a folder of own templates.
const (
	maxOwnFiles = 100
	maxOwnFile  = 256 << 10 // bytes
)

// ownFiles is what a folder of own templates holds: any of
//
//	NAME.html       in place of our template of that name (templates/)
//	page.css        in place of our style
//	texts/TAG.yaml  texts in place of ours, or of a further language
//
// Files whose names begin with a dot are nobody's business: Kubernetes has such in every mounted ConfigMap.
type ownFiles struct {
	templates map[string]string // by file name
	style     string
	texts     map[string][]byte // by language
}

// readOwn reads a folder of own templates. The folder says itself what is outside it: the caller hands in an [os.Root].
func readOwn(dir fs.FS) (own ownFiles, problems Problems) {
	own = ownFiles{templates: map[string]string{}, texts: map[string][]byte{}}
	if dir == nil {
		return own, nil
	}
	wrong := func(file string, what any, mend string) {
		problems = append(problems, Problem{"templates", fmt.Sprintf("%s: %v", cut(file), what), mend})
	}
	for i, file := range ownNames(dir, wrong) {
		if i == maxOwnFiles {
			wrong(".", fmt.Sprintf("has more than %d files", maxOwnFiles), "Name a folder that holds own templates alone")
			break
		}
		data, err := readOwnFile(dir, file)
		if err != nil {
			wrong(file, err, "Put a regular file there, readable by Postern's user")
			continue
		}
		folder, name := path.Split(file)
		tag, isTexts := strings.CutSuffix(name, ".yaml")
		switch {
		case folder == "texts/" && isTexts:
			if parsed, err := language.Parse(tag); err != nil || parsed.String() != tag {
				wrong(file, "is not named after a language", "Name it like texts/de.yaml or texts/pt-BR.yaml")
			}
			own.texts[tag] = data
		case file == "page.css":
			own.style = normal(data)
			if own.style == "" || strings.Contains(strings.ToLower(own.style), "</style") || strings.ContainsRune(own.style, 0) {
				wrong(file, "is empty or ends its own element", "Write CSS alone")
			}
		case builtinFile(file):
			own.templates[file] = normal(data)
		default:
			wrong(file, "is nothing that Postern reads", "Known: "+strings.Join(builtinFiles(), ", ")+", page.css, texts/LANGUAGE.yaml")
		}
	}
	return own, problems
}

// ownNames lists the files of a folder and of texts in it.
func ownNames(dir fs.FS, wrong func(file string, what any, mend string)) (names []string) {
	for _, folder := range []string{".", "texts"} {
		entries, err := fs.ReadDir(dir, folder)
		if err != nil && (folder == "." || !errors.Is(err, fs.ErrNotExist)) {
			wrong(folder, err, "Name a folder that Postern's user can read")
		}
		for _, e := range entries {
			if name := path.Join(folder, e.Name()); e.Name()[0] != '.' && name != "texts" {
				names = append(names, name)
			}
		}
	}
	return names
}

// readOwnFile reads a file, bounded. One that is none, such as a pipe, is not opened: that could wait for ever.
func readOwnFile(dir fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(dir, name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", reason(err))
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", reason(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxOwnFile+1))
	if err == nil && len(data) > maxOwnFile {
		err = fmt.Errorf("is larger than %d KiB", maxOwnFile>>10)
	}
	return data, err
}

// reason is an error of a file without its path, which the caller names.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// normal writes line ends as browsers read them: a style is allowed by the hash of that.
func normal(data []byte) string {
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	return string(bytes.ReplaceAll(data, []byte("\r"), []byte("\n")))
}

func builtinFile(name string) bool { return slices.Contains(builtinFiles(), name) }

// builtinFiles are the names of our templates' files.
func builtinFiles() (names []string) {
	for _, t := range builtin().Templates() {
		if t.Name() != "" {
			names = append(names, t.Name()+".html")
		}
	}
	slices.Sort(names)
	return names
}

// ownTemplates are an operator's templates, with ours where they have none, tried out. It is nil without any.
func (p *Pages) ownTemplates(own map[string]string) (*template.Template, Problems) {
	if len(own) == 0 {
		return nil, nil
	}
	var stop stopper
	set := template.New("").Funcs(template.FuncMap{"tick": stop.tick})
	var problems Problems
	for _, file := range builtinFiles() {
		text, isOwn := own[file]
		if !isOwn {
			data, err := files.ReadFile("templates/" + file)
			if err != nil {
				panic(err) // embedded: cannot be missing
			}
			text = string(data)
		}
		if err := add(set, file, text); err != nil {
			problems = append(problems, Problem{"templates", where(err), "Compare it with Postern's own " + file})
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	stop.watch(set)
	return set, p.tryOut(set, &stop)
}

// where is a template's error with the place in its file: NAME.html:LINE: what.
func where(err error) string {
	s := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "html/template:"), "template: ")
	name, rest, _ := strings.Cut(s, ":")
	return cut(name) + ".html:" + clip(printable(rest, 400), 400)
}
