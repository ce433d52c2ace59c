package alloc

import "github.com/manycast/manycast/internal/portion"

// Load is what a server says of its work for a service. The zero Load says nothing.
type Load struct {
	Connections int
	Accepts     float64  // new connections a second
	Bytes       float64  // a second, both directions
	CPU         float64  // of the whole machine, 0 to 1
	Memory      float64  // pressure, 0 to 1
	Application *float64 // given by the application, 1 is as much as it can bear; nil: it says nothing
	Queue       int      // connections waiting to be accepted
	Wanted      []portion.Portion
	Hot         []Hot // the heaviest first
	Kept        *Kept // nil: nothing is known of it
}

// Hot is a portion of the sources with a large share of a server's load.
type Hot struct {
	Portion portion.Portion
	Share   float64 // of the server's load, 0 to 1
}
