package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxLogo bounds the logo: it is in every page.
const maxLogo = 64 << 10

// Pages is the `pages` section.
type Pages struct {
	// Title is the name that every page of Postern's own shows. Default: Postern.
	Title string `yaml:"title"`
	// Logo is the file of an image that stands before the title: SVG, PNG, WebP or JPEG, up to 64KiB. It is part of every page: keep it small.
	Logo string `yaml:"logo"`
	// Colors are the site's own. Text must be readable on them: a contrast of less than 4.5:1 (WCAG 2.2) is a problem.
	Colors Colors `yaml:"colors"`
	// Support is a link at the foot of every page, for people who need help.
	Support Support `yaml:"support"`
	// Templates is a folder with own templates (`NAME.html`), an own style (`page.css`) and own texts (`texts/de.yaml`). What is not there is as Postern has it.
	Templates string `yaml:"templates"`
	// Languages are offered, the first to browsers that ask for none of them. Default: English first, and German, Spanish, French, Japanese, Polish and
	// those that `templates` has texts of.
	Languages []string `yaml:"languages"`
}

// Colors is the `pages.colors` section.
type Colors struct {
	// Accent is the colour of buttons and links, as #rgb or #rrggbb in quotes.
	Accent string `yaml:"accent"`
	// AccentDark is that of the dark scheme. Default: accent, as light as text has to be there.
	AccentDark string `yaml:"accent_dark"`
	// Background is the colour around the card.
	Background string `yaml:"background"`
	// BackgroundDark is that of the dark scheme.
	BackgroundDark string `yaml:"background_dark"`
}

// Support is the `pages.support` section.
type Support struct {
	// URL is an https or mailto address.
	URL string `yaml:"url"`
	// Text says where the link leads. Default: Help, in the page's language.
	Text string `yaml:"text"`
}

// ReadLogo returns the contents of the logo's file; nil without one. Whether it is an image is for others to say.
func (p Pages) ReadLogo() ([]byte, error) {
	if p.Logo == "" {
		return nil, nil
	}
	if info, err := os.Stat(p.Logo); err != nil {
		return nil, unreadableFile(err)
	} else if !info.Mode().IsRegular() { // opening a pipe could wait for ever
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(p.Logo)
	if err != nil {
		return nil, unreadableFile(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLogo+1))
	switch {
	case err != nil:
		return nil, unreadableFile(err)
	case len(data) == 0:
		return nil, errors.New("is empty")
	case len(data) > maxLogo:
		return nil, fmt.Errorf("is larger than %v", Size(maxLogo))
	}
	return data, nil
}

// OpenTemplates opens the folder of own templates, out of which no link leads; nil without one. The caller closes it.
func (p Pages) OpenTemplates() (*os.Root, error) {
	if p.Templates == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(p.Templates)
	if err != nil {
		return nil, unreadableFile(err)
	}
	return root, nil
}

// files are the files of which pages are made, and the folders in which there may be more of them.
func (p Pages) files() []string {
	var files []string
	if p.Logo != "" {
		files = append(files, p.Logo)
	}
	if p.Templates == "" {
		return files
	}
	for _, folder := range []string{p.Templates, filepath.Join(p.Templates, "texts")} {
		files = append(files, folder)
		entries, _ := os.ReadDir(folder) // where it cannot be read there is nothing to take from it
		for _, e := range entries {
			if !e.IsDir() {
				files = append(files, filepath.Join(folder, e.Name()))
			}
		}
	}
	return files
}
