package bus

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/manycast/manycast/internal/wholefile"
)

// Cluster makes one bus of several servers, each with a whole copy of the store. As long as more than half of them are there, it can
// be written; below that it is read at best. The zero Cluster is a server alone.
type Cluster struct {
	Listen string   // host:port where the other servers connect
	Peers  []string // host:port of the others: 2 or 4
}

func (c Cluster) alone() bool { return c.Listen == "" && len(c.Peers) == 0 }

// replicas is how many servers keep each entry: all of them.
func (c Cluster) replicas() int { return len(c.Peers) + 1 }

// check says what is wrong. An even number of servers would bear no more losses than one less.
func (c Cluster) check() error {
	if c.alone() {
		return nil
	}
	if n := len(c.Peers); n != 2 && n != 4 {
		return fmt.Errorf("bus: a cluster of %d servers: want 3 or 5, so name 2 or 4 others with --peer", n+1)
	}
	if _, _, err := splitHostPort(c.Listen); err != nil {
		return fmt.Errorf("bus: cluster address %q: want host:port: %w", c.Listen, err)
	}
	for i, address := range c.Peers {
		host, _, err := splitHostPort(address)
		if err != nil {
			return fmt.Errorf("bus: cluster address %q: want host:port: %w", address, err)
		}
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			return fmt.Errorf("bus: peer %s is no address that leads to another server: name the one where it listens", address)
		}
		if address == c.Listen || slices.Contains(c.Peers[:i], address) {
			return fmt.Errorf("bus: peer %s is this server itself, or named twice: name each of the others once", address)
		}
	}
	return nil
}

func splitHostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err == nil && (number == 0 || host == "") {
		err = errors.New("neither may be empty or 0")
	}
	return host, int(number), err
}

// join adds to the options what makes the server one of a cluster. It has to listen for clients then, which the library's routes wait
// for: on loopback, for nobody, as all users come by the gate alone.
func (s *Server) join(o *server.Options) error {
	c := s.cfg.Cluster
	secret, err := readClusterSecret(s.cfg.DataDir)
	if err != nil {
		return err
	}
	host, port, err := splitHostPort(c.Listen)
	if err != nil {
		return err
	}
	if o.ServerName, err = serverName(s.cfg.DataDir); err != nil {
		return err
	}
	s.cfg.Log.Info("bus is a server of a cluster", "name", o.ServerName)
	o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
	for _, u := range o.Nkeys {
		u.AllowedConnectionTypes = map[string]struct{}{"IN_PROCESS": {}}
	}
	o.Cluster = server.ClusterOpts{
		Name: "manycast", Host: host, Port: port, Username: clusterUser, Password: secret, NoAdvertise: true, PoolSize: -1,
		PingInterval: 2 * time.Second, MaxPingsOut: 2,
	}
	for _, peer := range c.Peers {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: peer, User: url.UserPassword(clusterUser, secret)})
	}
	return nil
}

// nameFile has what the others call this server.
const nameFile = "name"

// serverName is made at the first start, and stays whatever becomes of addresses and store: two of a name would shut each other out, and
// one of a new name would be one more server, of which the others count as missing the one that it was.
func serverName(dataDir string) (string, error) {
	path := filepath.Join(dataDir, nameFile)
	data, err := os.ReadFile(path)
	if err == nil {
		name := strings.TrimSpace(string(data))
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(".*>/\\", r) }) {
			return "", fmt.Errorf("bus: %s holds no name: write the one that the server had, or remove the file where it is a new server", path)
		}
		return name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("bus: %w", err)
	}
	name := "bus-" + strings.ToLower(rand.Text())
	if err := wholefile.Write(path, []byte(name+"\n")); err != nil {
		return "", fmt.Errorf("bus: %w", err)
	}
	return name, nil
}

// The servers of a cluster know each other by a secret.
const (
	clusterUser   = "bus"
	clusterSecret = "cluster.secret"
	secretBytes   = 32
)

func clusterSecretPath(dataDir string) string { return filepath.Join(dataDir, "creds", clusterSecret) }

// MakeCredentials makes the credentials that are missing in dataDir/creds (0600): the roles', and the secret of a cluster's servers.
// All servers of a cluster have to have the same. It returns the files that it made.
func MakeCredentials(dataDir string) (made []string, err error) {
	for _, r := range roles() {
		path := CredentialsPath(dataDir, r.name)
		isNew, err := ensureCredentials(path, r.name)
		if err != nil {
			return made, err
		}
		if isNew {
			made = append(made, path)
		}
	}
	path := clusterSecretPath(dataDir)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return made, err
	}
	var secret [secretBytes]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return made, fmt.Errorf("bus: %w", err)
	}
	if err := wholefile.Write(path, append([]byte(hex.EncodeToString(secret[:])), '\n')); err != nil {
		return made, fmt.Errorf("bus: %w", err)
	}
	return append(made, path), nil
}

func readClusterSecret(dataDir string) (string, error) {
	path := clusterSecretPath(dataDir)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("bus: %s is missing: make it on one machine with `manycast bus credentials`, and copy creds/ to all servers of the cluster", path)
	}
	if err != nil {
		return "", fmt.Errorf("bus: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("bus: %s may be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("bus: %w", err)
	}
	secret := strings.TrimSpace(string(data))
	if raw, err := hex.DecodeString(secret); err != nil || len(raw) != secretBytes {
		return "", fmt.Errorf("bus: %s holds no secret: copy that of another server of the cluster", path)
	}
	return secret, nil
}

const (
	quorumPatience = 20 * time.Second // then a server counts as ready without: to wait for others must not fail its own start
	quorumRetry    = 250 * time.Millisecond
)

// awaitQuorum makes the buckets as soon as enough servers are there.
func (s *Server) awaitQuorum(ctx context.Context, url string) {
	began, told := time.Now(), false
	tick := time.NewTicker(quorumRetry)
	defer tick.Stop()
	for {
		err := s.makeBuckets(ctx, url)
		if err == nil {
			s.lacking.Store(false)
			s.cfg.Log.Info("bus has a quorum", "after", time.Since(began).Round(time.Millisecond))
			s.once.Do(func() { close(s.ready) })
			return
		}
		if ctx.Err() != nil {
			return
		}
		if !told && time.Since(began) > quorumPatience {
			told = true
			s.cfg.Log.Warn("bus has no quorum: nothing can be written until more servers of the cluster are there", "peers", s.cfg.Cluster.Peers, "err", err)
			s.once.Do(func() { close(s.ready) })
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// makeBuckets makes the suite's buckets, so that the roles need no right to.
func (s *Server) makeBuckets(ctx context.Context, url string) error {
	c, err := Connect(Config{
		URLs: []string{url}, Credentials: CredentialsPath(s.cfg.DataDir, "admin"), Name: "bus", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	patience := 10 * time.Second
	if !s.cfg.Cluster.alone() {
		patience = 3 * time.Second // it is tried again: what is asked before there is a leader is not answered
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.WaitConnected(ctx); err != nil {
		return err
	}
	if s.cfg.Cluster.alone() {
		_, err = c.makeBuckets(ctx, 0, []string{BucketServers, BucketPins})
	} else {
		_, err = c.makeBuckets(ctx, s.cfg.Cluster.replicas(), nil)
	}
	if err == nil {
		err = c.raiseTerms(ctx, s.term)
	}
	if err != nil {
		return fmt.Errorf("%w: is %s full?", err, s.cfg.DataDir)
	}
	return nil
}
