package app

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab/numbered"
	"github.com/manycast/manycast/lbd/migrate"
)

// restless is a connection that is asked to leave again and again, as a migrate.Conn is.
type restless struct {
	net.Conn
	stays bool
}

func (r *restless) ask()  { r.SetDeadline(time.Unix(1, 0)) }
func (r *restless) goOn() { r.SetDeadline(time.Time{}) }

func (r *restless) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	return n, moving(err)
}

func (r *restless) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	return n, moving(err)
}

func (r *restless) SetMovable(w migrate.When) {
	if w == migrate.Never {
		r.stays = true
		r.goOn()
	}
}

func moving(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return migrate.ErrMoving
	}
	return err
}

// A stream goes on at one server after the other, wherever it is interrupted: at both ends all bytes come once and in order.
func TestStreamGoesOnElsewhere(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		here, there := net.Pipe()
		// Nobody waits for the user to read a whole write.
		hello := numbered.Hello{Stream: 7, Words: 5, Pace: 50 * time.Microsecond}
		sink := numbered.Sink{Stream: hello.Stream}
		const moves = 30
		over := make(chan struct{})
		go func() {
			source := numbered.Source{Stream: hello.Stream}
			for ended := false; !ended; {
				select {
				case <-over:
					there.Write(source.AppendEnd(nil))
					ended = true
				default:
					there.Write(source.Append(nil, 3))
				}
			}
		}()
		said := make(chan []byte, 1)
		go func() {
			r := rand.New(rand.NewPCG(seed, 1))
			var behind []byte
			for {
				p := make([]byte, 1+r.IntN(50))
				n, err := there.Read(p)
				behind = append(behind, sink.Take(p[:n])...)
				if err != nil {
					said <- behind
					return
				}
			}
		}()
		c := &restless{Conn: here}
		state, err := json.Marshal(&stream{Hello: hello, Source: numbered.Source{Stream: hello.Stream}, Sink: sink})
		if err != nil {
			t.Fatal(err)
		}
		for move := 0; ; move++ {
			s, err := arrived(state)
			if err != nil {
				t.Fatal(err)
			}
			s.Source.Writer = uint8(1 + move%3)
			c.goOn()
			if move < moves {
				time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, c.ask)
			} else {
				close(over)
			}
			if err = s.run(t.Context(), c); err == nil {
				break
			}
			if !errors.Is(err, migrate.ErrMoving) {
				t.Fatalf("seed %d, move %d: %v", seed, move, err)
			}
			if state, err = json.Marshal(s); err != nil {
				t.Fatal(err)
			}
		}
		here.Close()
		var up numbered.Counts
		if err := json.Unmarshal(<-said, &up); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if !sink.Ended || !sink.Seen.Whole() || !up.Whole() || sink.Seen.Received == 0 || up.Received == 0 || !c.stays {
			t.Errorf("seed %d: down %+v, up %+v", seed, sink.Seen, up)
		}
	}
}

func TestGarbageBeginsNoStream(t *testing.T) {
	here, there := net.Pipe()
	go there.Write(make([]byte, numbered.HelloBytes))
	if _, err := greet(here); err == nil {
		t.Error("zeros were taken for a hello")
	}
	go there.Write((numbered.Hello{Stream: 1, Words: 1}).Append(nil))
	if _, err := greet(here); err == nil {
		t.Error("a stream without pace and rate was taken")
	}
	there.Close()
	if _, err := greet(here); err == nil {
		t.Error("a stream began that did not")
	}
	if checkStream([]byte("{")) == nil || checkSession([]byte("{")) == nil {
		t.Error("half a state was taken")
	}
}
