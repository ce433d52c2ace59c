package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/manycast/manycast/internal/daemon"
)

// ServerConfig is the embedded bus: one NATS server with JetStream.
type ServerConfig struct {
	Listen  string // host:port
	DataDir string // JetStream's store, the credentials in creds/, the lock
	Cluster Cluster
	Log     *slog.Logger
}

// Server is the embedded bus.
type Server struct {
	cfg   ServerConfig
	ready chan struct{}
	turn  chan struct{}
	once  sync.Once // of ready
	kept  kept      // as on the disk
	term  uint64    // the highest, as on the disk

	failed time.Time // when the server failed to write last

	lacking atomic.Bool // a quorum, since the start
}

// NewServer makes a Server; Run starts it.
func NewServer(cfg ServerConfig) *Server {
	return &Server{cfg: cfg, ready: make(chan struct{}), turn: make(chan struct{})}
}

// String names the task.
func (s *Server) String() string { return "bus" }

// Ready is closed when clients can connect and all buckets are there; in a cluster without a quorum a while after the start.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// State implements daemon.Stater.
func (s *Server) State() string {
	if s.lacking.Load() {
		return "has no quorum yet: nothing can be written"
	}
	return ""
}

// Check says what is wrong with the configuration, as far as can be seen without serving.
func (c ServerConfig) Check() error {
	if err := c.Cluster.check(); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("bus: listen address %q: want host:port: %w", c.Listen, err)
	}
	if c.Cluster.alone() {
		return nil
	}
	_, err := readClusterSecret(c.DataDir)
	return err
}

// Turns is of the loop that asks the store again and again what it holds: it hangs where the store does.
func (s *Server) Turns() []chan<- struct{} { return []chan<- struct{}{s.turn} }

// Run serves until ctx is done. Errors: the directory is in use, not writable, full or damaged, the port is taken. What is damaged
// is left as it is. A disk that fills up later makes writes fail; when there is room again the server starts anew, on the same port.
func (s *Server) Run(ctx context.Context) error {
	if err := s.cfg.Cluster.check(); err != nil {
		return err
	}
	lock, err := daemon.Lock(s.cfg.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	for ctx.Err() == nil {
		if err := s.serve(ctx); err != nil {
			return err
		}
	}
	return nil
}

// serve serves until ctx is done or the server has to start anew.
func (s *Server) serve(ctx context.Context) error {
	users, roles, err := s.users()
	if err != nil {
		return err
	}
	options, err := s.options(users)
	if err != nil {
		return err
	}
	l, err := s.listen()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := s.inspect(); err != nil {
		return err
	}
	if s.term, err = readTerm(s.cfg.DataDir); err != nil {
		return err
	}
	ns, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	stuck := make(chan string, 1)
	ns.SetLogger(natsLog{s.cfg.Log, stuck}, false, false)
	go ns.Start()
	gate := gate{log: s.cfg.Log, role: roles, dial: ns.InProcessConn}
	open, shut := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	stop := sync.OnceFunc(func() {
		shut()
		clients.Wait()
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	defer stop()
	if !ns.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("bus: not ready after 10 s: is %s writable?", s.cfg.DataDir)
	}
	clients.Go(func() { gate.serve(open, l) })
	url := "nats://" + l.Addr().String()
	s.cfg.Listen = l.Addr().String() // the port stays when it was any
	if s.cfg.Cluster.alone() {
		if err := s.makeBuckets(ctx, url); err != nil {
			return err
		}
		s.once.Do(func() { close(s.ready) })
	} else {
		s.lacking.Store(true)
		clients.Go(func() { s.awaitQuorum(open, url) })
	}
	s.cfg.Log.Info("bus serves", "url", url, "data", s.cfg.DataDir)
	if why := s.watchRevisions(ctx, ns, stuck); why != "" {
		s.awaitWritable(ctx, why)
		return nil
	}
	s.noteRevisions(ns)
	stop()
	s.noteSums()
	return nil
}

const (
	roomNeeded = 1 << 20 // bytes
	roomCheck  = time.Second
	failsAgain = time.Minute // what fails so soon after a new start is not mended by another
)

// awaitWritable waits until the data directory can be written to: the server's streams do not try again by themselves. Why is what
// the server said. It gives a stream up for other errors than a full disk, too; where there is room a new start is all that is needed.
func (s *Server) awaitWritable(ctx context.Context, why string) {
	again := time.Since(s.failed) < failsAgain
	s.failed = time.Now()
	switch err := s.tryWrite(); {
	case err != nil:
		s.cfg.Log.Error("bus cannot write: nothing new is kept until it can", "data", s.cfg.DataDir, "err", err, "server", why)
	case again:
		s.cfg.Log.Error("bus failed to write again though there is room", "data", s.cfg.DataDir, "err", why)
	default:
		s.cfg.Log.Warn("bus failed to write though there is room: it starts anew", "data", s.cfg.DataDir, "err", why)
		return
	}
	tick := time.NewTicker(roomCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.tryWrite() == nil {
				s.cfg.Log.Info("bus can write again and starts anew")
				return
			}
		case <-s.turn:
		case <-ctx.Done():
			return
		}
	}
}

// tryWrite returns why nothing can be written to the data directory.
func (s *Server) tryWrite() error {
	path := filepath.Join(s.cfg.DataDir, "room")
	err := os.WriteFile(path, make([]byte, roomNeeded), 0o600)
	return errors.Join(err, os.Remove(path))
}

// options are of a server that listens to nobody: the gate brings it its clients.
func (s *Server) options(users []*server.NkeyUser) (*server.Options, error) {
	o := &server.Options{
		ServerName: "manycast-bus", DontListen: true, Nkeys: users,
		JetStream: true, StoreDir: filepath.Join(s.cfg.DataDir, "jetstream"),
		NoSigs: true, NoSystemAccount: false, MaxPayload: 1 << 20, PingInterval: 2 * time.Second, MaxPingsOut: 2,
		SyncAlways: true, // a power loss takes nothing that was acknowledged; registrations are exempt, see makeBuckets
	}
	if s.cfg.Cluster.alone() {
		return o, nil
	}
	return o, s.join(o)
}

func (s *Server) listen() (net.Listener, error) {
	if _, _, err := net.SplitHostPort(s.cfg.Listen); err != nil {
		return nil, fmt.Errorf("bus: listen address %q: want host:port: %w", s.cfg.Listen, err)
	}
	l, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("bus: %w: is another bus running? name another port with --listen", err)
	}
	return l, nil
}

// users reads the roles' credentials, and makes those that are missing (mode 0600). byKey are the roles by public key.
func (s *Server) users() (users []*server.NkeyUser, byKey map[string]string, err error) {
	byKey = map[string]string{}
	for _, r := range roles() {
		path := CredentialsPath(s.cfg.DataDir, r.name)
		made, err := ensureCredentials(path, r.name)
		if err != nil {
			return nil, nil, err
		}
		if made {
			s.cfg.Log.Info("bus credentials made", "role", r.name, "file", path)
		}
		public, err := publicKey(path, r.name)
		if err != nil {
			return nil, nil, err
		}
		byKey[public] = r.name
		users = append(users, &server.NkeyUser{Nkey: public, Permissions: r.permissions()})
	}
	return users, byKey, nil
}

// natsLog hands the server's log lines on. One of them is the only sign that a stream takes no more writes.
type natsLog struct {
	log   *slog.Logger
	stuck chan<- string // has room for one line
}

func (l natsLog) Noticef(f string, v ...any) { l.log.Debug(fmt.Sprintf(f, v...)) }
func (l natsLog) Warnf(f string, v ...any)   { l.log.Warn(fmt.Sprintf(f, v...)) }
func (l natsLog) Fatalf(f string, v ...any)  { l.log.Error(fmt.Sprintf(f, v...)) }
func (l natsLog) Debugf(f string, v ...any)  { l.log.Debug(fmt.Sprintf(f, v...)) }
func (l natsLog) Tracef(f string, v ...any)  { l.log.Debug(fmt.Sprintf(f, v...)) }

func (l natsLog) Errorf(f string, v ...any) {
	line := fmt.Sprintf(f, v...)
	l.log.Warn(line)
	if strings.Contains(strings.ToLower(line), "critical write error") {
		select {
		case l.stuck <- line:
		default:
		}
	}
}
