package scenario

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
)

// everybody says whether every server has users.
func (s *stage) everybody(counts map[string]int) bool {
	return !slices.ContainsFunc(s.servers, func(name string) bool { return counts[name] == 0 })
}

func (s *stage) awaitEven(ctx context.Context) error {
	_, err := s.web.await(ctx, "all have the same", func(c map[string]int) bool {
		counts := slices.Collect(maps.Values(c))
		return len(counts) == len(s.servers) && slices.Max(counts)-slices.Min(counts) <= 1
	})
	return err
}

func (s *stage) drainServer(ctx context.Context, name string) error {
	if err := s.cli(ctx, "server", "drain", s.member(name)); err != nil {
		return err
	}
	_, err := s.web.await(ctx, name+" has nothing", func(c map[string]int) bool { return c[name] == 0 })
	return err
}

// killServer takes a server's power away and waits until its users are others'.
func (s *stage) killServer(ctx context.Context, victim string) (at, found time.Time, err error) {
	at = time.Now()
	if err := s.kill(victim); err != nil {
		return at, found, err
	}
	if found, err = s.web.await(ctx, victim+" has nothing", func(c map[string]int) bool { return c[victim] == 0 }); err != nil {
		return at, found, err
	}
	s.isFound(found)
	return at, found, nil
}

// kill takes a server's power away.
func (s *stage) kill(victim string) error {
	at := time.Now()
	if err := s.lab.KillNode(victim); err != nil {
		return err
	}
	d := report.Death{Server: victim, At: at, Gone: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Deaths = append(s.tally.Deaths, d)
	return nil
}

// isFound notes when the last death was found.
func (s *stage) isFound(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Deaths[len(s.tally.Deaths)-1].Found = at
}

// revive starts a node that was killed.
func (s *stage) revive(ctx context.Context, node string, processes ...string) error {
	if err := s.lab.Restore(node); err != nil {
		return err
	}
	for _, p := range processes {
		if err := s.lab.Start(ctx, node, p); err != nil {
			return err
		}
	}
	return nil
}

// isBack notes that all is as it was before the last death.
func (s *stage) isBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Deaths[len(s.tally.Deaths)-1].Back = time.Now()
}

// poll looks every 200 ms whether something is so, for 20 s.
func (s *stage) poll(ctx context.Context, what string, is func() (bool, error)) error {
	for deadline := time.Now().Add(20 * time.Second); ; {
		ok, err := is()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within 20 s: %s", what)
		}
		if err := s.watchUntil(ctx, time.Now().Add(200*time.Millisecond)); err != nil {
			return err
		}
	}
}
