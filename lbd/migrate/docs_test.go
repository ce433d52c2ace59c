package migrate_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// All code in docs/migrate.md is of the examples.
func TestDocumentationIsOfTheExamples(t *testing.T) {
	text, err := os.ReadFile("../../docs/migrate.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples strings.Builder
	for _, file := range []string{"example_http_test.go", "example_stream_test.go"} {
		example, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		examples.Write(example)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Error("no code")
	}
	for _, block := range blocks {
		if !strings.Contains(examples.String(), block[1]) {
			t.Errorf("no example has\n%s", block[1])
		}
	}
}
