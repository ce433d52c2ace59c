package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/manycast/manycast/internal/wholefile"
)

// kept is what the bus remembers beside the store, to know that nothing of the store is missing.
type kept struct {
	// Last is, of each bucket, the revision that has to be there: of lasting buckets the highest at the time of writing, of those
	// whose entries expire 0.
	Last map[string]uint64 `json:"last"`
	// Sums are the message blocks' SHA-256 after a clean stop, by path below the streams' directory. Nil while the bus runs.
	Sums map[string]string `json:"sums,omitempty"`
}

const keptName = "kept.json"

func (k kept) empty() bool { return k.Last == nil }

func (k kept) buckets() []string { return slices.Sorted(maps.Keys(k.Last)) }

// readKept returns nothing at the first start.
func readKept(dataDir string) (kept, error) {
	path := filepath.Join(dataDir, keptName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, errDamaged{path, err.Error()}
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil || k.empty() {
		return kept{}, errDamaged{path, "is not what the bus wrote"}
	}
	return k, nil
}

func (k kept) write(dataDir string) error {
	data, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dataDir, keptName)
	return wholefile.Write(path, append(data, '\n'))
}

// compare compares the blocks with those of a clean stop.
func (k kept) compare(dir string) error {
	if k.Sums == nil {
		return nil
	}
	now, err := blockSums(dir)
	if err != nil {
		return errDamaged{dir, err.Error()}
	}
	for _, name := range slices.Sorted(maps.Keys(k.Sums)) {
		switch sum, ok := now[name]; {
		case !ok:
			return errDamaged{filepath.Join(dir, name), "is missing"}
		case sum != k.Sums[name]:
			return errDamaged{filepath.Join(dir, name), "is not as the bus left it when it stopped"}
		}
	}
	return nil
}

// blockSums are the SHA-256 of all message blocks.
func blockSums(dir string) (map[string]string, error) {
	sums := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, streamPrefix+"*", "msgs", "*.blk"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		sums[name] = hex.EncodeToString(sum[:])
	}
	return sums, nil
}

// lastRevisions asks the running server, without a connection, for kept.Last, and for the highest term.
func lastRevisions(ns *server.Server) (last map[string]uint64, term uint64, err error) {
	info, err := ns.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return nil, 0, fmt.Errorf("bus: %w", err)
	}
	last = map[string]uint64{}
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			bucket, ok := strings.CutPrefix(stream.Name, streamPrefix)
			if bucket == BucketLeases {
				term = stream.State.LastSeq
			}
			switch {
			case !ok || !slices.Contains(Buckets(), bucket):
			case expires(bucket):
				last[bucket] = 0
			default:
				last[bucket] = stream.State.LastSeq
			}
		}
	}
	return last, term, nil
}

// inspect refuses a damaged store, and says how to go on. In a cluster what one server has lost comes from the others.
func (s *Server) inspect() error {
	if !s.cfg.Cluster.alone() {
		return nil
	}
	k, err := readKept(s.cfg.DataDir)
	if err == nil {
		err = checkStore(s.cfg.DataDir, k)
	}
	if err != nil {
		return fmt.Errorf("bus: %s is damaged: %w. Nothing in it was changed. Move jetstream and %s away from there and put those of a "+
			"backup in their place; or none, to begin anew with an empty bus", s.cfg.DataDir, err, keptName)
	}
	s.kept = k
	if k.empty() {
		return removeUnserved(storeDir(s.cfg.DataDir))
	}
	if k.Sums != nil { // true no more as soon as the server runs
		s.kept.Sums = nil
		if err := s.kept.write(s.cfg.DataDir); err != nil {
			return fmt.Errorf("bus: %w", err)
		}
	}
	return nil
}

const noteEvery = 5 * time.Second

// watchRevisions writes down what the store holds until ctx is done, or the server cannot write: why is what it said then.
func (s *Server) watchRevisions(ctx context.Context, ns *server.Server, stuck <-chan string) (why string) {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		s.noteRevisions(ns)
		select {
		case <-tick.C:
		case <-s.turn:
		case <-ctx.Done():
			return ""
		case why := <-stuck:
			return why
		}
	}
}

// noteRevisions writes down what the next start has to find. On a full disk the old file stays.
func (s *Server) noteRevisions(ns *server.Server) {
	last, term, err := lastRevisions(ns)
	if err == nil {
		err = s.noteTerm(term)
	}
	if err == nil && s.cfg.Cluster.alone() {
		for bucket, revision := range s.kept.Last { // what vanished while it ran is missed at the next start
			last[bucket] = max(last[bucket], revision)
		}
		if maps.Equal(last, s.kept.Last) {
			return
		}
		s.kept.Last = last
		err = s.kept.write(s.cfg.DataDir)
	}
	if err != nil {
		s.cfg.Log.Warn("bus cannot write down what it holds", "err", err)
	}
}

// noteSums writes down the blocks of a server that has stopped. Without them the next start looks at each record's checksum alone.
func (s *Server) noteSums() {
	if !s.cfg.Cluster.alone() {
		return
	}
	sums, err := blockSums(storeDir(s.cfg.DataDir))
	if err == nil {
		s.kept.Sums = sums
		err = s.kept.write(s.cfg.DataDir)
	}
	if err != nil {
		s.cfg.Log.Warn("bus cannot write down what it holds", "err", err)
	}
}
