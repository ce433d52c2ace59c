package director

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

const web = "name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80, udp/53]\n"

func TestPlaneFollowsServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, err := service.Parse([]byte(web))
		if err != nil {
			t.Fatal(err)
		}
		services := make(chan []service.Service)
		plane := dataplane.NewFakeDirector()
		plane.Fail(errors.New("no such interface"))
		l := New(Config{Services: services, Plane: plane, Keep: true, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()

		services <- all
		synctest.Wait()
		select {
		case <-l.Ready():
			t.Error("ready before anything is set")
		default:
		}
		plane.Fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		<-l.Ready()
		if got := plane.Current(); len(got) != 1 || got[0].Group != all[0].Group || len(got[0].Ports) != 2 {
			t.Errorf("set %+v", got)
		}
		n := len(plane.Sets())
		time.Sleep(3 * checkEvery)
		synctest.Wait()
		if got := len(plane.Sets()); got < n+2 {
			t.Errorf("set %d times, then %d: who puts the program on an interface that is made anew?", n, got)
		}
		services <- nil
		synctest.Wait()
		if got := plane.Current(); len(got) != 0 {
			t.Errorf("set %+v, want nothing", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if closed, kept := plane.Closed(); !closed || !kept {
			t.Errorf("closed %v, kept %v", closed, kept)
		}
	})
}
