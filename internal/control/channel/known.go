package channel

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/wholefile"
)

// KnownFile keeps in a file who is on the channel, for a restart: who was silent then is, until it is heard.
type KnownFile struct {
	path string
	log  *slog.Logger
}

// KnownIn is the file in a state directory.
func KnownIn(stateDir string, log *slog.Logger) KnownFile {
	return KnownFile{filepath.Join(stateDir, "members"), log}
}

// keepEvery is how old the file may be.
const keepEvery = time.Second

// Load reads the file. Without it members are unknown until they are heard.
func (f KnownFile) Load() (known []members.Known) {
	text, err := os.ReadFile(f.path)
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("members of the control channel are not known from before", "err", err)
		return nil
	}
	return known
}

// Keep is the task that writes the file when who is there has changed, by now: a Channel's Known.
func (f KnownFile) Keep(now func() []members.Known) daemon.Task {
	return daemon.Func("members of the control channel", func(ctx context.Context) error { return f.keep(ctx, now) })
}

func (f KnownFile) keep(ctx context.Context, now func() []members.Known) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var kept []members.Known
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		known := now()
		if slices.EqualFunc(known, kept, sameMember) {
			continue
		}
		text, err := json.Marshal(known)
		if err == nil {
			err = wholefile.Write(f.path, text)
		}
		if err != nil {
			f.log.Error("members of the control channel are not kept: a restart does not know who was silent", "err", err)
			continue
		}
		kept = known
	}
	return nil
}

// sameMember says whether nothing but the time of its last report is another.
func sameMember(a, b members.Known) bool {
	a.Stamp = b.Stamp
	return a == b
}
