// Command package writes a .deb from one of the descriptions in systemd/package, by nfpm.
//
//	(cd tools/package && go run . -root ../.. -version 1.2.3 fovea fovea-grab)
package main

import (
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers "deb"
)

func main() {
	root := flag.String("root", ".", "top of the repository; other paths are relative to it")
	arch := flag.String("arch", "amd64", "Debian's name of the architecture")
	version := flag.String("version", "", "Debian version, as tools/version.sh prints it")
	build := flag.String("build", "build/bin", "folder of what was built")
	out := flag.String("out", "build/deb", "folder for the packages")
	ceiling := flag.String("glibc", "", "newest glibc that the program may need, such as 2.31; empty: any")
	flag.Parse()
	if err := os.Chdir(*root); err != nil {
		fatal(err)
	}
	if *version == "" || flag.NArg() == 0 {
		fatal(errors.New("usage: package -version VERSION [flags] NAME..."))
	}
	for _, name := range flag.Args() {
		file, err := write(name, *arch, *version, *build, *out, *ceiling)
		if err != nil {
			fatal(fmt.Errorf("%s: %w", name, err))
		}
		fmt.Println(file)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "package:", err)
	os.Exit(1)
}

// write makes the package of that name and returns its path.
func write(name, arch, version, build, out, ceiling string) (string, error) {
	values := map[string]string{"ARCH": arch, "VERSION": version, "BUILD": build}
	if program := filepath.Join(build, name); isFile(program) {
		libc, err := needsGlibc(program)
		if err != nil {
			return "", err
		}
		if ceiling != "" && newer(libc, ceiling) {
			return "", fmt.Errorf("%s needs glibc %s, and no more than %s is allowed: link it against an older one", program, libc, ceiling)
		}
		values["LIBC"] = libc
	}
	description, err := os.Open(filepath.Join("systemd", "package", name+".yaml"))
	if err != nil {
		return "", err
	}
	defer description.Close()
	config, err := nfpm.ParseWithEnvMapping(description, func(key string) string { return values[key] })
	if err != nil {
		return "", err
	}
	info, err := config.Get("deb")
	if err != nil {
		return "", err
	}
	for i, d := range info.Depends { // nfpm expands names of the package, not all of its lists
		info.Depends[i] = os.Expand(d, func(key string) string { return values[key] })
	}
	for _, c := range info.Contents {
		c.Source = os.Expand(c.Source, func(key string) string { return values[key] })
	}
	packager, err := nfpm.Get("deb")
	if err != nil {
		return "", err
	}
	info = nfpm.WithDefaults(info)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(out, packager.ConventionalFileName(info))
	to, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(packager.Package(info, to), to.Close()); err != nil {
		os.Remove(path)
		return "", err
	}
	return path, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// needsGlibc is the newest version of glibc that a program asks symbols of.
func needsGlibc(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return "", err
	}
	newest := "2.17"
	for _, s := range symbols {
		if v, ok := strings.CutPrefix(s.Version, "GLIBC_"); ok && newer(v, newest) {
			newest = v
		}
	}
	return newest, nil
}

// newer compares versions of numbers and dots.
func newer(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if m != n {
			return m > n
		}
	}
	return len(x) > len(y)
}
