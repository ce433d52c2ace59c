package keyfile

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// FileName is the group key's own name in a directory of keys: address and key identifier.
func (g Group) FileName() string { return fmt.Sprintf("%s-%08x.key", g.Address, g.Public().ID) }

// WriteGroup writes a group key, 0600, in one step; an existing file is replaced only if told.
func WriteGroup(path string, g Group, replace bool) error { return write(path, g.encode(), replace) }

// WriteMember writes a member key pair, 0600, in one step; an existing file is replaced only if told.
func WriteMember(path string, m Member, replace bool) error { return write(path, m.encode(), replace) }

// ReadGroup reads a group key; a file that group or others may read is refused.
func ReadGroup(path string) (Group, error) {
	text, err := read(path)
	if err != nil {
		return Group{}, err
	}
	g, err := decodeGroup(text)
	if err != nil {
		return Group{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return g, nil
}

// ReadMember reads a member key pair; a file that group or others may read is refused.
func ReadMember(path string) (Member, error) {
	text, err := read(path)
	if err != nil {
		return Member{}, err
	}
	m, err := decodeMember(text)
	if err != nil {
		return Member{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return m, nil
}

// ReadGroups reads all *.key files of a directory. What cannot be used comes back as one joined error beside the keys that can;
// a directory that does not exist has none.
func ReadGroups(dir string) ([]Group, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("group keys: %w", err)
	}
	var out []Group
	var bad []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".key") {
			continue
		}
		g, err := ReadGroup(filepath.Join(dir, e.Name()))
		if err != nil {
			bad = append(bad, err)
			continue
		}
		out = append(out, g)
	}
	return out, errors.Join(bad...)
}

// Pick finds the group's key to sign with at now: the one that became valid last.
func Pick(keys []Group, group netip.Addr, now time.Time) (Group, bool) {
	var best Group
	found := false
	for _, g := range keys {
		if g.Address != group || g.NotBefore.After(now) {
			continue
		}
		if !found || g.NotBefore.After(best.NotBefore) {
			best, found = g, true
		}
	}
	return best, found
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s has mode %s: want a regular file that only its owner may read (chmod 600 %s)", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return text, nil
}

// write makes a temporary file beside path and renames it, or links it where an existing file must stay.
func write(path string, text []byte, replace bool) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".key-*") // 0600
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	put := os.Link
	if replace {
		put = os.Rename
	}
	if err := put(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("key file %s is there already: move it away, or say that it is to be replaced: %w", path, fs.ErrExist)
	} else if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	return nil
}

// ReadTSIG reads a TSIG secret: base64 of 16 to 64 bytes in a file that only its owner may read. It comes back in base64.
func ReadTSIG(path string) (string, error) {
	text, err := read(path)
	if err != nil {
		return "", err
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) < 16 || len(secret) > 64 {
		return "", fmt.Errorf("TSIG secret %s: want 16 to 64 bytes in base64 (openssl rand -base64 32)", path)
	}
	return base64.StdEncoding.EncodeToString(secret), nil
}

// WriteTSIG makes a TSIG secret of 32 random bytes for hmac-sha256, 0600; an existing file stays.
func WriteTSIG(path string) error {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	return write(path, []byte(base64.StdEncoding.EncodeToString(secret)+"\n"), false)
}

// ReadLine reads a secret of one line, 1 to most bytes without its end, from a file that only its owner may read.
func ReadLine(path string, most int) (string, error) {
	text, err := read(path)
	if err != nil {
		return "", err
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if line == "" || len(line) > most || strings.ContainsAny(line, "\r\n\x00") {
		return "", fmt.Errorf("key file %s: want one line of 1 to %d bytes", path, most)
	}
	return line, nil
}
