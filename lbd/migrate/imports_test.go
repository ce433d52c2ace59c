package migrate_test

import (
	"go/build"
	"slices"
	"strings"
	"testing"
)

// An application that imports this package gets nothing else with it than golang.org/x/sys.
func TestImports(t *testing.T) {
	const here = "github.com/manycast/manycast/lbd/migrate"
	allowed := []string{here + "/wire", "golang.org/x/sys/unix"}
	for _, dir := range []string{".", "wire"} {
		for _, system := range []string{"linux", "darwin"} {
			context := build.Default
			context.GOOS = system
			p, err := context.ImportDir(dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range p.Imports {
				if domain, _, _ := strings.Cut(path, "/"); strings.Contains(domain, ".") && !slices.Contains(allowed, path) {
					t.Errorf("%s imports %s", p.Dir, path)
				}
			}
		}
	}
}
