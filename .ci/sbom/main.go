// Command sbom says what a built program consists of: a CycloneDX bill of materials, and the licences of all modules that are linked into it. It fails
// when a module has a licence that nobody has looked at.
//
//	go run -modfile=.ci/tools.mod ./.ci/sbom PROGRAM FOLDER
//
// What it writes depends on the program alone, so two builds that are the same have the same files.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/licensecheck"
)

// allowed are the licences that a program under Apache-2.0 may be linked from without giving its own source away.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// leastCoverage is how much of a file must be the words of licences that are known, in percent.
const leastCoverage = 75

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([._-].*)?$`)

// module is a part of the program, with its licences.
type module struct {
	path, version string
	licences      []string // SPDX identifiers
	texts         [][]byte
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom PROGRAM FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(program, folder string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	modules, err := linked(info)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	texts := filepath.Join(folder, "THIRD_PARTY_LICENSES")
	if err := os.WriteFile(texts, licenceTexts(modules), 0o644); err != nil {
		return err
	}
	var bom bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&bom, cyclonedx.BOMFileFormatJSON).SetPretty(true)
	if err := encoder.Encode(billOf(info, modules)); err != nil {
		return err
	}
	for _, m := range modules {
		fmt.Printf("%-60s %-36s %s\n", m.path, m.version, strings.Join(m.licences, " "))
	}
	return os.WriteFile(filepath.Join(folder, "postern.cdx.json"), bom.Bytes(), 0o644)
}

// linked finds the modules of a program and their licences; the first is Go's standard library.
func linked(info *buildinfo.BuildInfo) ([]module, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	std, err := licensed("std", info.GoVersion, strings.TrimSpace(string(goroot)))
	modules, problems := []module{std}, []error{err}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		folder, err := sourceOf(dep)
		if err != nil {
			return nil, err
		}
		m, err := licensed(dep.Path, dep.Version, folder)
		modules, problems = append(modules, m), append(problems, err)
	}
	return modules, errors.Join(problems...)
}

// sourceOf is the folder of a module's source, which the build has fetched.
func sourceOf(m *debug.Module) (string, error) {
	out, err := exec.Command("go", "mod", "download", "-json", m.Path+"@"+m.Version).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", m.Path, m.Version, err)
	}
	var found struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &found); err != nil {
		return "", err
	}
	if found.Sum != m.Sum {
		return "", fmt.Errorf("%s %s: the source has the sum %s, what was built has %s", m.Path, m.Version, found.Sum, m.Sum)
	}
	return found.Dir, nil
}

// licensed reads the licences of the source in a folder.
func licensed(path, version, folder string) (module, error) {
	m := module{path: path, version: version}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return m, err
	}
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return m, err
		}
		m.texts = append(m.texts, text)
		found := licensecheck.Scan(text)
		if notice := strings.HasPrefix(strings.ToLower(e.Name()), "notice"); !notice && found.Percent < leastCoverage {
			return m, fmt.Errorf("%s %s: %s is no licence that is known", path, version, e.Name())
		}
		for _, match := range found.Match {
			if !match.IsURL && !slices.Contains(m.licences, match.ID) {
				m.licences = append(m.licences, match.ID)
			}
		}
	}
	if len(m.licences) == 0 {
		return m, fmt.Errorf("%s %s has no licence", path, version)
	}
	for _, id := range m.licences {
		if !slices.Contains(allowed, id) {
			return m, fmt.Errorf("%s %s: is %s a licence to link from? See the list in .ci/sbom", path, version, id)
		}
	}
	return m, nil
}

func licenceTexts(modules []module) []byte {
	var b bytes.Buffer
	b.WriteString("The program postern contains the following modules, under the licences below.\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "\n%s\n%s %s\n\n", strings.Repeat("=", 80), m.path, m.version)
		b.Write(bytes.Join(m.texts, []byte("\n")))
	}
	return b.Bytes()
}

// billOf describes the program. It has no serial number and no time, which would differ from one build to the next.
func billOf(info *buildinfo.BuildInfo, modules []module) *cyclonedx.BOM {
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = ""
	program := component("postern", "", cyclonedx.ComponentTypeApplication, []string{"Apache-2.0"})
	bom.Metadata = &cyclonedx.Metadata{Component: &program}
	parts, names := []cyclonedx.Component{}, []string{}
	for _, m := range modules {
		part := component(m.path, m.version, cyclonedx.ComponentTypeLibrary, m.licences)
		parts, names = append(parts, part), append(names, part.BOMRef)
	}
	bom.Components = &parts
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: program.BOMRef, Dependencies: &names}}
	properties := []cyclonedx.Property{{Name: "go:version", Value: info.GoVersion}}
	for _, s := range info.Settings {
		if s.Key == "GOOS" || s.Key == "GOARCH" || s.Key == "vcs.revision" {
			properties = append(properties, cyclonedx.Property{Name: "go:" + s.Key, Value: s.Value})
		}
	}
	program.Properties = &properties
	return bom
}

func component(path, version string, kind cyclonedx.ComponentType, licences []string) cyclonedx.Component {
	name := "pkg:golang/" + path
	if version != "" {
		name += "@" + version
	}
	var of cyclonedx.Licenses
	for _, id := range licences {
		of = append(of, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
	}
	return cyclonedx.Component{BOMRef: name, Type: kind, Name: path, Version: version, PackageURL: name, Licenses: &of}
}
