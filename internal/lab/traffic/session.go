package traffic

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
)

// session is what a user and servers know of each other beyond one connection.
type session struct {
	user    netip.Addr
	cookie  string // how many answers there were; empty: nobody counts
	header  string // response header that says who the server thinks that asks; empty: none does
	answers int
}

// ask tells the server how far the session is.
func (s *session) ask(r *http.Request) {
	if s.cookie != "" {
		r.AddCookie(&http.Cookie{Name: s.cookie, Value: strconv.Itoa(s.answers)})
	}
}

// heard takes an answer: it is of this session, the next one, and the server knows whose.
func (s *session) heard(r *http.Response) error {
	if s.header != "" {
		if sees, err := netip.ParseAddrPort(r.Header.Get(s.header)); err != nil || sees.Addr() != s.user {
			return fmt.Errorf("the server sees %q, and not %v", r.Header.Get(s.header), s.user)
		}
	}
	if s.cookie == "" {
		return nil
	}
	for _, c := range r.Cookies() {
		if c.Name == s.cookie && c.Value == strconv.Itoa(s.answers+1) {
			s.answers++
			return nil
		}
	}
	return fmt.Errorf("session lost: answer %d has the cookies %v", s.answers+1, r.Cookies())
}
