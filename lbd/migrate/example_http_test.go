package migrate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/manycast/manycast/lbd/migrate"
)

// session is what the shop keeps for a connection between requests.
type session struct {
	Basket []string `json:"basket"`
}

type sessionKey struct{}

// newShop is a server whose users fill a basket, one article a request. The basket belongs to the connection.
func newShop() *http.Server {
	return &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			s := &session{}
			if state, ok := c.(*migrate.Conn).Imported(); ok {
				if err := json.Unmarshal(state, s); err != nil { // checkSession has read it before
					log.Print(err)
				}
			}
			return context.WithValue(ctx, sessionKey{}, s)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := r.Context().Value(sessionKey{}).(*session)
			if article := r.FormValue("buy"); article != "" {
				s.Basket = append(s.Basket, article)
			}
			fmt.Fprintln(w, s.Basket)
		}),
	}
}

// exportSession is called when a connection is about to leave, between requests.
func exportSession(ctx context.Context) ([]byte, error) {
	return json.Marshal(ctx.Value(sessionKey{}))
}

// checkSession refuses what this version of the shop cannot read: the connection stays where it is.
func checkSession(state []byte) error {
	return json.Unmarshal(state, &session{})
}

// An HTTP server whose connections move between requests, sessions included.
func ExampleServeHTTP() {
	l, err := migrate.Listen("tcp", "127.0.0.1:0", migrate.Options{Name: "shop", Movable: migrate.Later, Check: checkSession})
	if err != nil {
		log.Fatal(err)
	}
	shop := newShop()
	go migrate.ServeHTTP(shop, l, exportSession)
	defer shop.Close()

	for _, article := range []string{"tea", "milk"} {
		answer, err := http.Get("http://" + l.Addr().String() + "/?buy=" + article)
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(string(text))
	}
	// Output:
	// [tea]
	// [tea milk]
}
