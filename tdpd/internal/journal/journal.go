// Package journal keeps on disk which label is whose, so that a router that is started again gives FECs the labels they had (RFC 3478):
// the kernel knows labels and next hops, but not for what. It is a file of lines that only grows, and is written anew when most of it
// is of the past.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

const (
	version = "manycast tdpd labels 1"
	fileMax = 256 << 20 // bytes of a file that is read
	spare   = 4096      // lines of the past that do not matter
)

// Journal is the file, open to be added to. Not safe for concurrent use.
type Journal struct {
	path  string
	boot  string
	file  *os.File
	live  map[netip.Prefix]wire.Label
	lines int
}

// Open reads what a run of this boot has left, and goes on with it. Labels of another boot count for nothing: the kernel has
// forgotten them. A last line that is torn is passed over.
func Open(path, boot string) (*Journal, error) {
	j := &Journal{path: path, boot: boot, live: map[netip.Prefix]wire.Label{}}
	if err := j.read(); err != nil {
		return nil, err
	}
	return j, j.rewrite()
}

// Labels are those that FECs have. They must not be changed.
func (j *Journal) Labels() map[netip.Prefix]wire.Label { return j.live }

// Set notes the labels of FECs.
func (j *Journal) Set(bound map[netip.Prefix]wire.Label, unbound []netip.Prefix) error {
	var b bytes.Buffer
	for _, p := range unbound {
		if _, had := j.live[p]; had {
			delete(j.live, p)
			fmt.Fprintf(&b, "- %v\n", p)
			j.lines++
		}
	}
	for p, label := range bound {
		j.live[p] = label
		appendLine(&b, p, label)
		j.lines++
	}
	if j.file == nil || j.lines > 2*len(j.live)+spare {
		return j.rewrite()
	}
	if _, err := j.file.Write(b.Bytes()); err != nil {
		j.file.Close()
		j.file = nil // what was written is not known: the next time all of it is written
		return fmt.Errorf("labels' journal: %w", err)
	}
	return nil
}

func appendLine(b *bytes.Buffer, p netip.Prefix, label wire.Label) {
	fmt.Fprintf(b, "%d %v\n", uint32(label), p)
}

// rewrite replaces the file by one that has what holds.
func (j *Journal) rewrite() error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", version, j.boot)
	for p, label := range j.live {
		appendLine(&b, p, label)
	}
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
	next := j.path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("labels' journal: %w", err)
	}
	if _, err = f.Write(b.Bytes()); err == nil {
		err = os.Rename(next, j.path)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("labels' journal: %w", err)
	}
	j.file, j.lines = f, len(j.live)
	return nil
}

func (j *Journal) read() error {
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("labels' journal: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > fileMax {
		return fmt.Errorf("labels' journal %s is no regular file of at most %d bytes: remove it", j.path, fileMax)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("labels' journal: %w", err)
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	header := version + " " + j.boot + "\n"
	if !bytes.HasPrefix(whole, []byte(header)) {
		return nil
	}
	for line := range strings.Lines(string(whole[len(header):])) {
		j.take(strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// take reads a line; one that makes no sense is passed over.
func (j *Journal) take(line string) {
	what, text, _ := strings.Cut(line, " ")
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return
	}
	if what == "-" {
		delete(j.live, p)
	} else if label, err := strconv.ParseUint(what, 10, 20); err == nil {
		j.live[p] = wire.Label(label)
	}
}

// Close closes the file, which stays.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

// Remove is for a clean stop, which leaves no labels.
func (j *Journal) Remove() error {
	return errors.Join(j.Close(), os.Remove(j.path))
}

// Path is where the file is.
func (j *Journal) Path() string { return j.path }
