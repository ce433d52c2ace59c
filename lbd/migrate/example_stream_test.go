package migrate_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/manycast/manycast/lbd/migrate"
)

// stream is how far a connection has come in both directions. It writes the numbers from 0 on, a line each, and counts the bytes that its
// user sends, all at the same time.
type stream struct {
	Next     int    // number
	Cut      int    // bytes of its line that have been written
	Received uint64 // bytes
}

// serveStream serves a connection until its user ends it, or another server goes on with it.
func serveStream(c *migrate.Conn) {
	defer c.Close()
	var s stream
	if state, ok := c.Imported(); ok {
		if err := json.Unmarshal(state, &s); err != nil {
			log.Print(err)
			return
		}
	}
	c.SetMovable(migrate.Now)
	for {
		if err := s.run(c); !errors.Is(err, migrate.ErrMoving) {
			return
		}
		state, err := json.Marshal(s)
		if err != nil {
			c.Stay("its state cannot be written")
			continue
		}
		if err := c.Move(state); !errors.Is(err, migrate.ErrStays) {
			return // it is elsewhere
		}
	}
}

// run reads and writes until the connection is asked to move, or ends. Then neither goes on.
func (s *stream) run(c *migrate.Conn) error {
	reader := make(chan error)
	go func() { reader <- s.read(c) }()
	err := s.write(c)
	if !errors.Is(err, migrate.ErrMoving) {
		c.Close() // ends the reader
	}
	if err := <-reader; !errors.Is(err, migrate.ErrMoving) {
		return err
	}
	return err
}

func (s *stream) write(c *migrate.Conn) error {
	for {
		line := fmt.Sprintln(s.Next)
		n, err := c.Write([]byte(line[s.Cut:]))
		s.Cut += n // also where it was interrupted
		if err != nil {
			return err
		}
		s.Next, s.Cut = s.Next+1, 0
	}
}

func (s *stream) read(c *migrate.Conn) error {
	buffer := make([]byte, 4096)
	for {
		n, err := c.Read(buffer)
		s.Received += uint64(n)
		if errors.Is(err, migrate.ErrMoving) {
			return err
		}
		if err != nil {
			c.Close() // ends the writer
			return err
		}
	}
}

// A server that reads and writes all the time. When the connection is asked to move both stop, at a byte that the server knows.
func ExampleConn_Move() {
	l, err := migrate.Listen("tcp", "127.0.0.1:0", migrate.Options{Name: "numbers", Movable: migrate.Later})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveStream(c.(*migrate.Conn))
		}
	}()

	user, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer user.Close()
	lines := bufio.NewScanner(user)
	for range 3 {
		lines.Scan()
		fmt.Println(lines.Text())
	}
	// Output:
	// 0
	// 1
	// 2
}
