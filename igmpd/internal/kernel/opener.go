package kernel

import (
	"errors"
	"maps"
	"os"
	"slices"

	"github.com/manycast/manycast/igmpd/internal/kernel/holder"
	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
)

// opener is where the tables' sockets come from.
type opener interface {
	open(table uint32) (*mroute.Socket, error)
	release(table uint32) error            // after the socket was closed here
	held() ([]uint32, error)               // tables that live on from a process before
	give(tables map[uint32]*os.File) error // to a holder that was started anew and lacks them
	keeps() bool                           // whether forwarding outlives this process
}

func newOpener(socket string) opener {
	if socket == "" {
		return ownSockets{}
	}
	return heldSockets{socket}
}

type ownSockets struct{}

func (ownSockets) open(table uint32) (*mroute.Socket, error) { return mroute.Open(table) }
func (ownSockets) release(uint32) error                      { return nil }
func (ownSockets) held() ([]uint32, error)                   { return nil, nil }
func (ownSockets) give(map[uint32]*os.File) error            { return nil }
func (ownSockets) keeps() bool                               { return false }

// heldSockets dials anew for each request: a holder that was restarted is found again.
type heldSockets struct{ path string }

func (h heldSockets) ask(do func(*holder.Client) error) error {
	c, err := holder.Dial(h.path)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close())
}

func (h heldSockets) open(table uint32) (s *mroute.Socket, err error) {
	err = h.ask(func(c *holder.Client) error {
		f, err := c.Open(table)
		if err == nil {
			s = mroute.FromFile(f, table)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.SameNamespace(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (h heldSockets) release(table uint32) error {
	return h.ask(func(c *holder.Client) error { return c.Release(table) })
}

func (h heldSockets) held() (tables []uint32, err error) {
	err = h.ask(func(c *holder.Client) error {
		tables, err = c.List()
		return err
	})
	return tables, err
}

func (h heldSockets) give(tables map[uint32]*os.File) error {
	return h.ask(func(c *holder.Client) error {
		held, err := c.List()
		if err != nil {
			return err
		}
		var errs []error
		for _, t := range slices.Sorted(maps.Keys(tables)) {
			if !slices.Contains(held, t) {
				errs = append(errs, c.Give(t, tables[t]))
			}
		}
		return errors.Join(errs...)
	})
}

func (h heldSockets) keeps() bool { return true }
