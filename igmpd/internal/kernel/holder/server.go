package holder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/manycast/manycast/internal/peercred"
	"golang.org/x/sys/unix"
)

// clientsMax bounds the connections: one igmpd, and what an operator may add.
const clientsMax = 8

// turnEvery is how long the server may wait for a connection before it looks whether its state is free.
const turnEvery = time.Second

// refusedWithin is how long a connection of another user may stay.
const refusedWithin = time.Second

// Store keeps the tables' sockets while the holder itself restarts (daemon.FDStore).
type Store interface {
	Files() map[string]*os.File
	Put(name string, f *os.File) error
	Remove(name string) error
}

// Server holds tables.
type Server struct {
	path string
	open func(table uint32) (*os.File, error)
	uid  uint32
	kept Store
	log  *slog.Logger

	mu     sync.Mutex
	tables map[uint32]*os.File

	ready chan struct{}
	turn  chan struct{}
}

// New makes the server of a unix socket's path. It begins with the tables that kept has of an earlier run.
func New(path string, kept Store, log *slog.Logger) *Server {
	s := &Server{
		path: path, open: openTable, uid: uint32(os.Geteuid()), kept: kept, log: log, tables: map[uint32]*os.File{},
		ready: make(chan struct{}), turn: make(chan struct{}),
	}
	for name, f := range kept.Files() {
		number, err := strconv.ParseUint(strings.TrimPrefix(name, tablePrefix), 10, 32)
		if err != nil || !strings.HasPrefix(name, tablePrefix) {
			log.Warn("holder was given what is no table of its own", "name", name)
			f.Close()
			continue
		}
		s.tables[uint32(number)] = f
	}
	return s
}

// tablePrefix and a table's number are the name by which its socket is kept.
const tablePrefix = "table-"

func keptAs(table uint32) string { return fmt.Sprint(tablePrefix, table) }

// Ready is closed when igmpd finds the socket.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Turns is of the loop that takes connections. It needs the tables' lock in each turn.
func (s *Server) Turns() []chan<- struct{} { return []chan<- struct{}{s.turn} }

// String names the task.
func (s *Server) String() string { return "holder" }

func openTable(table uint32) (*os.File, error) {
	s, err := mroute.Open(table)
	if err != nil {
		return nil, err
	}
	return s.File(), nil
}

// Run serves, once, until ctx ends. The tables, and with them forwarding, end with the process, not with Run.
func (s *Server) Run(ctx context.Context) error {
	lock, err := lockPath(s.path)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("holder's old socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: s.path, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("holder's socket: %w", err)
	}
	if err := os.Chmod(s.path, 0o600); err != nil {
		l.Close()
		return fmt.Errorf("holder's socket: %w", err)
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	s.log.Info("holder listens", "socket", s.path, "tables", len(s.tables))
	close(s.ready)
	return s.accept(ctx, l)
}

func (s *Server) accept(ctx context.Context, l *net.UnixListener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	places := make(chan struct{}, clientsMax)
	for {
		s.turned()
		if err := l.SetDeadline(time.Now().Add(turnEvery)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("holder's socket: %w", err)
		}
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return fmt.Errorf("holder's socket: %w", err)
		}
		select {
		case places <- struct{}{}:
			clients.Go(func() {
				defer func() { <-places }()
				s.serve(ctx, c)
			})
		default:
			s.log.Warn("holder refuses a connection: too many", "limit", clientsMax)
			c.Close()
		}
	}
}

func (s *Server) turned() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.turn:
	default:
	}
}

func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	refused := s.admit(c)
	if refused != nil { // it may ask once, to hear why not
		if err := c.SetReadDeadline(time.Now().Add(refusedWithin)); err != nil {
			return
		}
	}
	var buf [requestSize + 1]byte // one more, so that an overlong message shows
	rights := make([]byte, unix.CmsgSpace(4))
	for {
		n, oob, _, _, err := c.ReadMsgUnix(buf[:], rights)
		if err != nil || n == 0 {
			return
		}
		given, err := givenFile(rights[:oob])
		r, wrong := parseRequest(buf[:n])
		if err = cmp.Or(refused, wrong, err); err == nil && (r.op == opGive) != (given != nil) {
			err = errNotOurs
		}
		if err != nil {
			closeGiven(given)
			_, gone := c.Write(reply{failed: err.Error()}.marshal())
			s.log.Warn("holder ends a connection", "err", err, "told", gone == nil)
			return
		}
		if err := s.answer(c, r, given); err != nil {
			s.log.Warn("holder ends a connection", "err", err)
			return
		}
	}
}

// givenFile is the descriptor that came beside a request; nil: none did.
func givenFile(oob []byte) (*os.File, error) {
	fd, err := descriptor(oob)
	if err != nil || fd < 0 {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "mroute table given"), nil
}

func closeGiven(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// admit takes only processes of the holder's own user.
func (s *Server) admit(c *net.UnixConn) error {
	peer, err := peercred.Of(c)
	if err != nil {
		return err
	}
	if peer.Uid != s.uid {
		return fmt.Errorf("the holder serves user id %d only, not %d (process %d)", s.uid, peer.Uid, peer.Pid)
	}
	return nil
}

// answer carries a request out. It fails only where the connection does.
func (s *Server) answer(c *net.UnixConn, r request, given *os.File) error {
	var rep reply
	var rights []byte
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.op {
	case opList:
		rep.tables = s.list(r.table)
	case opGive:
		s.take(r.table, given)
	case opRelease:
		if f, ok := s.tables[r.table]; ok {
			f.Close()
			delete(s.tables, r.table)
			s.warn(s.kept.Remove(keptAs(r.table)))
		}
	case opOpen:
		f, err := s.get(r.table)
		if err != nil {
			rep.failed = err.Error()
			break
		}
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		// The descriptor stays open: s.mu keeps it from being released until it is on its way.
		if err := raw.Control(func(fd uintptr) { rights = unix.UnixRights(int(fd)) }); err != nil {
			return err
		}
	}
	_, _, err := c.WriteMsgUnix(rep.marshal(), rights, nil)
	return err
}

func (s *Server) get(table uint32) (*os.File, error) {
	if f, ok := s.tables[table]; ok {
		return f, nil
	}
	f, err := s.open(table)
	if err != nil {
		return nil, err
	}
	s.tables[table] = f
	s.warn(s.kept.Put(keptAs(table), f))
	return f, nil
}

// take holds a table by a socket that somebody else opened, unless it is held.
func (s *Server) take(table uint32, given *os.File) {
	if _, held := s.tables[table]; held {
		given.Close()
		return
	}
	s.log.Info("holder takes a table over", "table", table)
	s.tables[table] = given
	s.warn(s.kept.Put(keptAs(table), given))
}

// warn says what a restart of the holder would lose.
func (s *Server) warn(err error) {
	if err != nil {
		s.log.Warn("forwarding would not outlive this holder", "err", err)
	}
}

func (s *Server) list(from uint32) []uint32 {
	var tables []uint32
	for t := range s.tables {
		if t >= from {
			tables = append(tables, t)
		}
	}
	slices.Sort(tables)
	return tables[:min(len(tables), listMax)]
}

// lockPath keeps a second holder off the socket. The lock goes with the process.
func lockPath(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("holder's socket: %w", err)
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("holder's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another holder serves %s: stop it, or give this one another socket: %w", path, err)
	}
	return f, nil
}
