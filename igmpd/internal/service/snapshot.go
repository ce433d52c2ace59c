package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/igmpd/internal/membership"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/wholefile"
)

const (
	snapshotVersion = 1
	snapshotMax     = 64 << 20 // bytes
	snapshotSoon    = 50 * time.Millisecond
	snapshotLater   = 5 * time.Second
)

// snapshot is the file that outlives the process.
type snapshot struct {
	Version    int                 `json:"version"`
	BootID     string              `json:"boot_id"`
	Membership membership.Snapshot `json:"membership"`
	Stamps     []admission.Stamp   `json:"stamps"`
	Control    []members.Known     `json:"control,omitempty"` // members of the control channel
}

// saveSoon makes sure that a snapshot is written within d, or when its share of the time allows.
func (s *Service) saveSoon(now time.Time, d time.Duration) {
	if at := later(now.Add(d), s.saves.next()); s.saveAt.IsZero() || at.Before(s.saveAt) {
		s.saveAt = at
	}
}

// save hands the state to the writer.
func (s *Service) save(now time.Time) {
	s.saveAt = time.Time{}
	began := time.Now()
	snap := snapshot{Version: snapshotVersion, BootID: s.BootID, Membership: s.table.Snapshot(now), Stamps: s.checker.Stamps()}
	if s.Control != nil {
		snap.Control = s.Control.Known()
	}
	data, err := json.Marshal(snap)
	if err != nil {
		s.stats.warn(now, "snapshot", "err", err)
		return
	}
	s.saves.spend(began, time.Now())
	s.snapshots.put(data)
}

// runSnapshots writes the newest snapshot. What cannot be written, on a full disk say, leaves the last one in place.
func (s *Service) runSnapshots(ctx context.Context) {
	var last error
	for {
		data, ok := s.snapshots.get(ctx)
		if !ok {
			return
		}
		err := wholefile.Write(s.snapshotPath(), data)
		switch {
		case err != nil && last == nil:
			s.Log.Error("snapshot not written: a restart would begin with an older one", "err", err)
		case err == nil && last != nil:
			s.Log.Info("snapshot written again")
		}
		last = err
	}
}

// restore takes the snapshot over. Only what the operator has to mend is an error.
func (s *Service) restore(now time.Time) error {
	snap, err := readSnapshot(s.snapshotPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("snapshot: %w", err)
	case err != nil:
		q := s.Config.Querier
		s.holdUntil = now.Add(q.QueryResponseInterval + q.LastMemberQueryInterval)
		aside := s.snapshotPath() + ".bad"
		s.Log.Warn("snapshot cannot be used: starting without; the kernel's state stays until the members had time to answer",
			"err", err, "until", s.holdUntil, "kept_as", aside)
		if err := os.Rename(s.snapshotPath(), aside); err != nil {
			s.Log.Warn("snapshot stays where it is", "err", err)
		}
		return nil
	}
	actions, err := s.table.Restore(now, snap.Membership, snap.BootID == s.BootID)
	if err != nil {
		s.Log.Warn("snapshot: entries left out", "first", err)
	}
	s.checker.RestoreStamps(snap.Stamps)
	s.act(actions)
	return nil
}

// KnownMembers are the control channel's members of the snapshot in a state directory; none where it cannot be read: New tells of that.
func KnownMembers(stateDir string) []members.Known {
	snap, err := readSnapshot(snapshotPath(stateDir))
	if err != nil {
		return nil
	}
	return snap.Control
}

func readSnapshot(path string) (snapshot, error) {
	info, err := os.Stat(path)
	if err != nil {
		return snapshot{}, err
	}
	if info.Size() > snapshotMax {
		return snapshot{}, fmt.Errorf("%s has %d bytes, at most %d are expected", path, info.Size(), snapshotMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return snapshot{}, err
	}
	return parseSnapshot(data)
}

func parseSnapshot(data []byte) (snapshot, error) {
	var snap snapshot
	if err := json.Unmarshal(data, &snap); err != nil {
		return snapshot{}, fmt.Errorf("snapshot: %w", err)
	}
	if snap.Version != snapshotVersion {
		return snapshot{}, fmt.Errorf("snapshot of version %d, want %d", snap.Version, snapshotVersion)
	}
	return snap, nil
}
