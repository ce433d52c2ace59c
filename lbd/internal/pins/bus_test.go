package pins

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/bus"
)

// An agent may say whom it pins, a director hears it and may answer, and says nothing in an agent's name.
func TestOverTheBus(t *testing.T) {
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := free.Addr().String()
	free.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	server, ended := bus.NewServer(bus.ServerConfig{Listen: listen, DataDir: dir, Log: slog.New(slog.DiscardHandler)}), make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	select {
	case <-server.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	connect := func(role string) *bus.Conn {
		c, err := bus.Connect(bus.Config{URLs: []string{"nats://" + listen}, Credentials: bus.CredentialsPath(dir, role), Name: role, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if err := c.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
		return c
	}
	agent, director := connect("agent"), connect("director")
	of := func(c *bus.Conn) *bus.Bucket { return c.Bucket(bus.BucketConfig{Name: bus.BucketPins}) }
	heard := make(chan Answer, 1)
	stop, err := OnBus(agent).Listen(func(a Answer) { heard <- a })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	want := example(2)
	raw, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	key := Key(want.Service, want.Server)
	revision, err := of(agent).Put(ctx, key, raw)
	if err != nil {
		t.Fatal(err)
	}
	entries := of(director).Watch(ctx)
	if e := <-entries; e.Key != key || e.Revision != revision {
		t.Fatalf("the director hears %+v", e)
	}
	answer := Answer{Director: "d1", Service: want.Service, Server: want.Server, Revision: revision, Held: true}
	if err := OnBus(director).Say(answer); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-heard:
		if got != answer {
			t.Errorf("the agent hears %+v", got)
		}
	case <-ctx.Done():
		t.Error("the agent hears nothing")
	}
	if _, err := of(director).Put(ctx, key, raw); err == nil {
		t.Error("a director pins users")
	}
	if err := of(agent).Delete(ctx, key); err != nil {
		t.Error(err)
	}
}
