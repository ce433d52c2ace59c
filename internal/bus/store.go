package bus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// The server mends a damaged store by cutting it off at the damage, and serves what is left: a registry could be gone, and nobody
// told. So the store is read, and only read, before each start. What a crash leaves behind is no damage: records are appended to
// the last block of a stream, so there may be a torn one at its end; files are replaced by renaming.

// storeDir is where the server keeps the streams below the bus' data directory.
func storeDir(dataDir string) string {
	return filepath.Join(dataDir, "jetstream", "jetstream", "$G", "streams")
}

const streamPrefix = "KV_" // of a bucket's stream

// errDamaged is what is wrong in the store.
type errDamaged struct{ path, what string }

func (e errDamaged) Error() string { return e.path + ": " + e.what }

// checkStore compares the store with what was kept at the last stop, and each record with its checksum. It returns the first
// damage found.
func checkStore(dataDir string, k kept) error {
	dir := storeDir(dataDir)
	streams, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errDamaged{dir, err.Error()}
	}
	last := map[string]uint64{}
	for _, s := range streams {
		if !s.IsDir() || !strings.HasPrefix(s.Name(), streamPrefix) {
			continue
		}
		if k.empty() && neverServed(filepath.Join(dir, s.Name())) {
			continue
		}
		seq, err := checkStream(dir, s.Name())
		if err != nil {
			return err
		}
		last[strings.TrimPrefix(s.Name(), streamPrefix)] = seq
	}
	for _, bucket := range k.buckets() {
		stream := filepath.Join(dir, streamPrefix+bucket)
		switch seq, ok := last[bucket]; {
		case !ok:
			return errDamaged{stream, "is missing"}
		case seq < k.Last[bucket]:
			return errDamaged{stream, fmt.Sprintf("ends at revision %d: %d was there", seq, k.Last[bucket])}
		}
	}
	return k.compare(dir)
}

// neverServed reports a stream whose making was cut short: no checksum of its configuration yet, and nothing in it.
func neverServed(stream string) bool {
	if _, err := os.Stat(filepath.Join(stream, "meta.sum")); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	blocks, err := blocksOf(stream)
	for _, b := range blocks {
		info, statErr := os.Stat(blockPath(stream, b))
		err = errors.Join(err, statErr)
		if statErr == nil && info.Size() > 0 {
			return false
		}
	}
	return err == nil
}

// removeUnserved removes what neverServed says is worth nothing: the server would not make those streams anew.
func removeUnserved(dir string) error {
	streams, err := filepath.Glob(filepath.Join(dir, streamPrefix+"*"))
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	for _, stream := range streams {
		if !neverServed(stream) {
			continue
		}
		if err := os.RemoveAll(stream); err != nil {
			return fmt.Errorf("bus: %w", err)
		}
	}
	return nil
}

// checkStream returns the highest sequence in the stream's blocks.
func checkStream(dir, name string) (last uint64, err error) {
	stream := filepath.Join(dir, name)
	if err := checkMeta(stream, name); err != nil {
		return 0, err
	}
	blocks, err := blocksOf(stream)
	if err != nil {
		return 0, errDamaged{stream, err.Error()}
	}
	for i, b := range blocks {
		path := blockPath(stream, b)
		data, err := os.ReadFile(path)
		if err != nil {
			return 0, errDamaged{path, err.Error()}
		}
		seq, err := checkBlock(data, name, b, i == len(blocks)-1)
		if err != nil {
			return 0, errDamaged{path, err.Error()}
		}
		last = max(last, seq)
	}
	return last, nil
}

// checkMeta compares a stream's configuration with its checksum.
func checkMeta(stream, name string) error {
	path := filepath.Join(stream, "meta.inf")
	meta, err := os.ReadFile(path)
	if err != nil {
		return errDamaged{path, err.Error()}
	}
	sum, err := os.ReadFile(filepath.Join(stream, "meta.sum"))
	if err != nil {
		return errDamaged{filepath.Join(stream, "meta.sum"), err.Error()}
	}
	key := sha256.Sum256([]byte(name))
	hash, err := highwayhash.New64(key[:])
	if err != nil {
		return err
	}
	hash.Write(meta)
	if hex.EncodeToString(hash.Sum(nil)) != string(sum) {
		return errDamaged{path, "does not match its checksum"}
	}
	return nil
}

func blockPath(stream string, index int) string {
	return filepath.Join(stream, "msgs", strconv.Itoa(index)+".blk")
}

// blocksOf are the indices of a stream's message blocks, in order. A new stream has none.
func blocksOf(stream string) ([]int, error) {
	files, err := os.ReadDir(filepath.Join(stream, "msgs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var blocks []int
	for _, f := range files {
		number, ok := strings.CutSuffix(f.Name(), ".blk")
		if index, err := strconv.Atoi(number); ok && err == nil {
			blocks = append(blocks, index)
		}
	}
	slices.Sort(blocks)
	return blocks, nil
}

// A record of nats-server's filestore: length 4 (highest bit: has headers), sequence 8 (highest bits: erased, tombstone), time 8,
// length of the subject 2, subject, [length of the headers 4, headers], message, checksum 8; little endian.
const (
	recordHeader = 22
	recordSum    = 8
	recordMost   = 32 << 20
	headersBit   = 1 << 31
	erasedBit    = 1 << 63
	tombstoneBit = 1 << 62
)

// checkBlock compares each record with its checksum and returns the highest sequence. Only the stream's last block may end in the
// middle of a record, or in zeros.
func checkBlock(data []byte, stream string, index int, lastBlock bool) (last uint64, err error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, index))
	hash, err := highwayhash.New64(key[:])
	if err != nil {
		return 0, err
	}
	prefix := []byte("$KV." + strings.TrimPrefix(stream, streamPrefix) + ".")
	for at := 0; at < len(data); {
		rest := data[at:]
		if lastBlock && (len(rest) < recordHeader || len(bytes.TrimLeft(rest, "\x00")) == 0) {
			return last, nil
		}
		if len(rest) < recordHeader {
			return 0, fmt.Errorf("ends in the middle of a record, at byte %d", at)
		}
		length := binary.LittleEndian.Uint32(rest)
		headers := length&headersBit != 0
		length &^= headersBit
		sequence := binary.LittleEndian.Uint64(rest[4:])
		subject := int(binary.LittleEndian.Uint16(rest[20:]))
		fixed := recordHeader + subject + recordSum
		if headers {
			fixed += 4
		}
		if int64(length) < int64(fixed) || length > recordMost {
			return 0, fmt.Errorf("no record at byte %d", at)
		}
		if int64(length) > int64(len(rest)) {
			if lastBlock && plausibleTail(rest, subject, prefix) {
				return last, nil
			}
			return 0, fmt.Errorf("ends in the middle of a record, at byte %d", at)
		}
		body := rest[recordHeader:length]
		hash.Reset()
		hash.Write(rest[4:20])
		hash.Write(body[:subject])
		if headers {
			hash.Write(body[subject+4 : len(body)-recordSum])
		} else {
			hash.Write(body[subject : len(body)-recordSum])
		}
		if !bytes.Equal(hash.Sum(nil), body[len(body)-recordSum:]) {
			return 0, fmt.Errorf("the record at byte %d does not match its checksum", at)
		}
		last = max(last, sequence&^(erasedBit|tombstoneBit))
		at += int(length)
	}
	return last, nil
}

// plausibleTail reports whether rest is one record that was cut short, and not a whole one, or several, behind a wrong length.
func plausibleTail(rest []byte, subject int, prefix []byte) bool {
	body := rest[recordHeader:]
	if subject == 0 {
		return true // a tombstone
	}
	seen := body[:min(subject, len(body))]
	if !bytes.HasPrefix(seen, prefix[:min(len(prefix), len(seen))]) {
		return false
	}
	return !bytes.Contains(body[len(seen):], prefix)
}
