package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestFrames(t *testing.T) {
	var wire, stdout, stderr bytes.Buffer
	f := &frames{w: &wire}
	long := bytes.Repeat([]byte("x"), 2*maxPayload+1)
	for s, data := range map[stream][]byte{{f, kindStdout}: long, {f, kindStderr}: []byte("err\n")} {
		if n, err := s.Write(data); n != len(data) || err != nil {
			t.Fatal(n, err)
		}
	}
	whole := bytes.Clone(wire.Bytes())
	if err := f.send(kindEnd, []byte(`{"status":7}`)); err != nil {
		t.Fatal(err)
	}
	e, err := readFrames(&wire, &stdout, &stderr)
	if err != nil || e != (end{Status: 7}) || !bytes.Equal(stdout.Bytes(), long) || stderr.String() != "err\n" {
		t.Errorf("%+v, %v, %d bytes, %q", e, err, stdout.Len(), stderr.String())
	}
	if _, err := readFrames(bytes.NewReader(whole), io.Discard, io.Discard); !errors.Is(err, io.EOF) {
		t.Errorf("no end: %v", err)
	}
	for _, garbage := range []string{"o\xff\xff\xff\xff", "?\x00\x00\x00\x00", "x\x00\x00\x00\x01{", "o\x00\x00\x00\x09x"} {
		if e, err := readFrames(strings.NewReader(garbage), io.Discard, io.Discard); err == nil {
			t.Errorf("%q: %+v", garbage, e)
		}
	}
}

func TestModuleOrder(t *testing.T) {
	m, err := readModules(fstest.MapFS{
		"modules.dep":     {Data: []byte("kernel/a-b.ko:\nkernel/c.ko: kernel/a-b.ko\nkernel/d.ko.xz: kernel/c.ko kernel/a-b.ko\n")},
		"modules.builtin": {Data: []byte("kernel/in.ko\n")},
	}, "6.1")
	if err != nil {
		t.Fatal(err)
	}
	files, err := m.order("in", "c", "d", "a-b")
	if want := []string{"kernel/a-b.ko", "kernel/c.ko", "kernel/d.ko.xz"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := m.order("e"); err == nil || err.Error() != "kernel 6.1 has no module e" {
		t.Error(err)
	}
	if _, err := readModules(fstest.MapFS{}, "6.1"); err == nil {
		t.Error("a directory without modules.dep is none")
	}
}

func TestNewestKernel(t *testing.T) {
	dir := t.TempDir()
	if _, err := newest(dir); err == nil {
		t.Error("an empty directory has a kernel")
	}
	for _, v := range []string{"6.1.0-9-amd64", "6.1.0-56-amd64", "5.10.0-99-amd64", "6.1.0-56"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := newest(dir); err != nil || filepath.Base(got) != "6.1.0-56-amd64" {
		t.Error(got, err)
	}
}

func TestKernelThatIsUnpackedBoots(t *testing.T) {
	dir := t.TempDir()
	for _, image := range []string{"vmlinuz-6.1", "vmlinux-6.1"} {
		if err := os.WriteFile(filepath.Join(dir, image), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := bootImage(dir, "6.1"); got != filepath.Join(dir, image) {
			t.Error(got)
		}
	}
}

func TestArchive(t *testing.T) {
	var a archive
	a.add("d", 0o40755, nil)
	a.add("d/f", 0o100644, []byte("hello"))
	const want = "070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "d\x00" +
		"070701" + "00000002" + "000081A4" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "d/f\x00\x00\x00" + "hello\x00\x00\x00"
	if got := string(a.end()); !strings.HasPrefix(got, want) || !strings.Contains(got[len(want):], "TRAILER!!!\x00") {
		t.Errorf("got %q\nwant %q...", got, want)
	}
}

func TestTail(t *testing.T) {
	c := &tail{}
	for range 3 * consoleBytes / 4 {
		_, _ = c.Write([]byte("abc\n"))
	}
	_, _ = c.Write([]byte("one\r\ntwo\r\n\r\n"))
	if got := string(c.last(2)); got != "one\ntwo" {
		t.Errorf("%q", got)
	}
	if got := c.last(1 << 20); len(got) > consoleBytes || !bytes.HasSuffix(got, []byte("abc\none\ntwo")) {
		t.Errorf("%d bytes", len(got))
	}
}

func TestBadUse(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(cacheEnv, t.TempDir())
	tests := map[string][]string{
		"which command?":                                 {},
		"no such directory":                              {"-write", "/nonexistent", "--", "/bin/true"},
		"-timeout -1s":                                   {"-timeout", "-1s", "--", "/bin/true"},
		"-memory 1: at least 256":                        {"-memory", "1", "--", "/bin/true"},
		"-kernel bsd: auto, host, uml or qemu":           {"-kernel", "bsd", "--", "/bin/true"},
		"nonesuch":                                       {"--", "nonesuch"},
		"tools/setup test installs it (package user":     {"-kernel", "uml", "--", "/bin/true"},
		"tools/setup test installs it (package qemu":     {"-kernel", "qemu", "--", "/bin/true"},
		"flag provided but not defined: -verbose\nusage": {"-verbose"},
	}
	for want, args := range tests {
		var stderr bytes.Buffer
		if status := hostMain(args, io.Discard, &stderr); status != failed || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: %d, %s", args, status, stderr.String())
		}
	}
}
