package main

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

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/groupkeys"
	"github.com/manycast/manycast/internal/wholefile"
	"github.com/manycast/manycast/tdpd/internal/service"
)

// openControl has the service hear the control channel, and returns it with its tasks; nil where there is none. The conn may be nil: keys
// come from the directory alone then.
func openControl(o *service.Options, conn *bus.Conn) (*channel.Channel, []daemon.Task, error) {
	cfg := o.Config.Control
	if !cfg.Enabled() {
		return nil, nil, nil
	}
	store := memberStore{filepath.Join(o.Config.StateDir, "members"), o.Log}
	c, err := channel.Listen(cfg.ListenConfig, o.Config.Name, store.load(), o.Log)
	if err != nil {
		return nil, nil, err
	}
	o.Control = c
	tasks := []daemon.Task{c, daemon.Func("members of the control channel", func(ctx context.Context) error { return store.keep(ctx, c.Known) })}
	var sealed groupkeys.Watcher
	if conn != nil {
		sealed = conn.Bucket(bus.BucketConfig{Name: bus.BucketKeys})
		tasks = append(tasks, c.Answer(conn, "tdpd"))
	}
	return c, append(tasks, groupkeys.New(cfg.Keys, cfg.Member, sealed, c.SetKeys, o.Log)), nil
}

// memberStore keeps in a file who is on the channel, for a restart: who was silent then is, until it is heard.
type memberStore struct {
	path string
	log  *slog.Logger
}

// keepEvery is how old the file may be.
const keepEvery = time.Second

// load reads the file. Without it servers are well until they are heard of.
func (s memberStore) load() (known []members.Known) {
	text, err := os.ReadFile(s.path)
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("members of the control channel are not known from before", "err", err)
		return nil
	}
	return known
}

// keep writes the file when who is there has changed, until ctx is done.
func (s memberStore) keep(ctx context.Context, now func() []members.Known) error {
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
			err = wholefile.Write(s.path, text)
		}
		if err != nil {
			s.log.Error("members of the control channel are not kept: a restart takes silent servers for well", "err", err)
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
