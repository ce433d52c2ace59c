package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/manycast/manycast/internal/wholefile"
)

// A director's term is the revision of its lease. Directors and routers remember the highest, and refuse lower ones. So a store
// from a backup, or an empty one, has to go on above what there was: the highest is in a file of its own, beside the store.

const (
	termsName = "terms"
	termsGap  = 1000 // more than there are between two notes
)

// noteTerm keeps the highest term.
func (s *Server) noteTerm(term uint64) error {
	if term <= s.term {
		return nil
	}
	if err := wholefile.Write(filepath.Join(s.cfg.DataDir, termsName), fmt.Appendln(nil, term)); err != nil {
		return err
	}
	s.term = term
	return nil
}

// readTerm returns 0 at the first start.
func readTerm(dataDir string) (uint64, error) {
	path := filepath.Join(dataDir, termsName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("bus: %w", err)
	}
	term, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 62)
	if err != nil {
		return 0, fmt.Errorf("bus: %s has no number: write the highest term that `manycast allocation show` told, or that a director's "+
			"term file has: %w", path, err)
	}
	return term, nil
}

// raiseTerms lets the leases' revisions go on above term, where they ended below.
func (c *Conn) raiseTerms(ctx context.Context, term uint64) error {
	stream, err := c.js.Stream(ctx, streamPrefix+BucketLeases)
	if err != nil {
		return classify(err)
	}
	if stream.CachedInfo().State.LastSeq >= term {
		return nil
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(term+termsGap)); err != nil {
		return fmt.Errorf("raise terms above %d: %w", term, classify(err))
	}
	return nil
}
