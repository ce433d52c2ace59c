package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// UserHeader is a response header of a Plain: the address and port that it sees at the user's end.
const UserHeader = "X-User"

// SessionCookie is a Plain's: how many answers the session has had. A session outlives its connections, and belongs to no server.
const SessionCookie = "answers"

// Plain is an HTTP server as others write them: it knows nothing of lbd/migrate. It is a daemon.Task.
type Plain struct {
	name     string
	listener net.Listener
	ready    chan struct{}
}

// ListenPlain opens address:port, on which it serves.
func ListenPlain(ctx context.Context, name, address string) (*Plain, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("plain %s: %w", name, err)
	}
	p := &Plain{name: name, listener: l, ready: make(chan struct{})}
	close(p.ready) // what is in the listen queue is served
	return p, nil
}

// Addr is the address that it listens on.
func (p *Plain) Addr() net.Addr { return p.listener.Addr() }

// String names the task.
func (p *Plain) String() string { return "plain " + p.name }

// Ready is closed when connections are taken.
func (p *Plain) Ready() <-chan struct{} { return p.ready }

// Run serves until ctx is done.
func (p *Plain) Run(ctx context.Context) error {
	server := &http.Server{Handler: http.HandlerFunc(p.answer), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("plain %s: %w", p.name, err)
	}
	return nil
}

// answer answers every path. A request without a cookie begins a session.
func (p *Plain) answer(w http.ResponseWriter, r *http.Request) {
	answers := 0
	if c, err := r.Cookie(SessionCookie); err == nil {
		if answers, err = strconv.Atoi(c.Value); err != nil {
			http.Error(w, "no session is like that", http.StatusBadRequest)
			return
		}
	}
	http.SetCookie(w, &http.Cookie{Name: SessionCookie, Value: strconv.Itoa(answers + 1)})
	w.Header().Set(ServerHeader, p.name)
	w.Header().Set(UserHeader, r.RemoteAddr)
	fmt.Fprintf(w, "%s %s\n", p.name, r.RemoteAddr)
}
