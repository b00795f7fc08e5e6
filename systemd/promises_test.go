package systemd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/promises.md numbers sixteen promises, and each test that it names is there.
func TestPromisesNameTheirTests(t *testing.T) {
	page, err := os.ReadFile("../docs/promises.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{} // of the tests of a room
	numbered := 0
	for line := range strings.Lines(string(page)) {
		if !regexp.MustCompile(`^\| \d+ \|`).MatchString(line) {
			continue
		}
		numbered++
		cells := strings.Split(line, "|")
		if len(cells) != 7 {
			t.Fatalf("a row has %d cells: %s", len(cells), line)
		}
		named := regexp.MustCompile("`([a-z]+)\\.((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(cells[4], -1)
		if len(named) == 0 && strings.TrimSpace(cells[5]) == "" {
			t.Errorf("neither a test nor what is missing: %s", line)
		}
		for _, m := range named {
			room, test := m[1], m[2]
			if _, read := sources[room]; !read {
				sources[room] = testsOf(t, room)
			}
			if !strings.Contains(sources[room], "func "+test+"(") {
				t.Errorf("promise%s: room %s has no %s", cells[1], room, test)
			}
		}
	}
	if numbered != 16 {
		t.Errorf("%d promises", numbered)
	}
}

// testsOf is the text of all tests in a room.
func testsOf(t *testing.T, room string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join("..", room), func(path string, e os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		all.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
