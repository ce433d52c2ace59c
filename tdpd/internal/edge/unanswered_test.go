package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// failing is a router that answers with an error alone.
type failing struct{ err error }

func (f failing) Ask(context.Context, *tdpdv1.Request) (*tdpdv1.Answer, error) {
	return &tdpdv1.Answer{Router: "r1"}, f.err
}

// TestUnanswered: why there is no answer is said as a code and in words, where a program may want to know, at the socket and on the bus.
func TestUnanswered(t *testing.T) {
	connect, _ := startBus(t)
	operator := connect("admin")
	for i, c := range []struct {
		err error
		why tdpdv1.Why
	}{
		{fmt.Errorf("what it announces: %w", bgp.ErrNone), tdpdv1.Why_WHY_NO_BGP},
		{fmt.Errorf("clear neighbor 10.0.0.9: %w", bgp.ErrNoNeighbor), tdpdv1.Why_WHY_NO_NEIGHBOR},
		{errors.New("it is stuck"), tdpdv1.Why_WHY_UNSPECIFIED},
	} {
		dir, name, router := t.TempDir(), fmt.Sprintf("r%d", i), connect("tdpd")
		task, err := ListenStatus(dir, failing{c.err}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		background(t, task.Run)
		background(t, func(ctx context.Context) error { return ServeBus(ctx, router, name, failing{c.err}) })
		text := exchange(t, filepath.Join(dir, "status.sock"), "")
		atSocket, onBus := &tdpdv1.Answer{}, &tdpdv1.Answer{}
		ask := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return operator.Request(ctx, "tdpd.ask."+name, &tdpdv1.Request{}, onBus)
		}
		if c.why == tdpdv1.Why_WHY_UNSPECIFIED {
			if !strings.Contains(string(text), `{"error":"it is stuck"}`) {
				t.Errorf("at the socket: %s", text)
			}
			eventually(t, func() error {
				if err := ask(); err == nil || !strings.Contains(err.Error(), "it is stuck") {
					return fmt.Errorf("on the bus: %w", err)
				}
				return nil
			})
			continue
		}
		if err := protojson.Unmarshal(text, atSocket); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		eventually(t, ask)
		for where, a := range map[string]*tdpdv1.Answer{"at the socket": atSocket, "on the bus": onBus} {
			if u := a.GetUnanswered(); u.GetWhy() != c.why || u.GetText() != c.err.Error() || a.GetRouter() != "r1" {
				t.Errorf("%s: %v", where, a)
			}
		}
	}
}
