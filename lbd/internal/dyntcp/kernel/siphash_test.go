package kernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The function that draws cookies gives what its authors say: SipHash-2-4 of 16 bytes 00, 01, ... under the key of the same.
func TestSipHash(t *testing.T) {
	const program = `#include <stdio.h>
typedef unsigned long long __u64;
#define __noinline __attribute__((noinline))
#include "siphash.h"
int main(void)
{
	__u64 first = 0x0706050403020100, second = 0x0f0e0d0c0b0a0908;
	printf("%016llx", siphash(first, second, first, second));
}
`
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "siphash.c"), filepath.Join(dir, "siphash")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("clang", "-Ibpf", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("clang (tools/setup test): %v: %s", err, out)
	}
	out, err := exec.Command(binary).Output()
	if want := "3f2acc7f57c29bdb"; err != nil || string(out) != want {
		t.Errorf("%s, %v, want %s", out, err, want)
	}
}
