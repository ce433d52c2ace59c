package binder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/pins"
	"github.com/manycast/manycast/lbd/internal/store"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const web = "name: web\nvip: 192.0.2.80\nvip6: 2001:db8::80\nmode: tags\nports: [tcp/80]\n"

// routers note what they are told.
type routers struct {
	mu    sync.Mutex
	heard map[string][]string
	away  map[string]bool
}

func (r *routers) Only(_ context.Context, router string, services []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away[router] {
		return errors.New("nobody there")
	}
	r.heard[router] = append(r.heard[router], "only "+strings.Join(services, ", "))
	return nil
}

func (r *routers) Bind(_ context.Context, router string, b *tdpdv1.UserBinding) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away[router] {
		return errors.New("nobody there")
	}
	text := "withdraw"
	if b.GetNobody() != nil {
		text = "nobody"
	}
	if a := b.GetAllocation(); a != nil {
		text = fmt.Sprintf("%d of %d vips, %d ms and %d, %v", a.GetEpoch().GetNumber(), len(b.GetVips()), b.GetLifetimeMs(), b.GetHoldMs(), b.GetRefuse())
	}
	if b.GetReactive() {
		text += ", reactive"
	}
	r.heard[router] = append(r.heard[router], b.GetService()+" "+text)
	return nil
}

func (r *routers) setAway(router string, away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away[router] = away
}

func (r *routers) take(router string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer delete(r.heard, router)
	return r.heard[router]
}

func parse(t *testing.T, text string) []service.Service {
	t.Helper()
	all, err := service.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func state(t *testing.T, number uint64) []byte {
	t.Helper()
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"s1"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.3.0.11")}, Owner: []uint16{0, 0}, Standby: []uint16{alloc.None, alloc.None},
	}
	data, err := store.EncodeState("web", store.State{Committed: a})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What a router reads in a word is what the service says.
func TestSplitIsTold(t *testing.T) {
	text := web + "split: [203.0.113.7/32, 2001:db8::/32]\n"
	s := parse(t, text)[0]
	w := newWords(Config{})
	var got []string
	for _, p := range w.word(s, allocated{}).GetSplit() {
		a, _ := netip.AddrFromSlice(p[:len(p)-1])
		got = append(got, fmt.Sprintf("%v/%d", a, p[len(p)-1]))
	}
	if fmt.Sprint(got) != "[203.0.113.7/32 2001:db8::/32]" {
		t.Errorf("told %v", got)
	}
}

func TestRoutersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &routers{heard: map[string][]string{}, away: map[string]bool{"r2": true}}
		services, bucket := make(chan []service.Service), store.NewMemory(0)
		b := New(Config{
			Routers: []string{"r1", "r2"}, Lifetime: 30 * time.Second, Hold: time.Minute, Services: services, Allocations: bucket, Pins: store.NewMemory(0), Answers: pins.NewFake(), Router: r, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go b.Run(ctx)
		want := func(when, router string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := r.take(router); !slices.Equal(got, want) {
				t.Errorf("%s: %s heard %q, want %q", when, router, got, want)
			}
		}
		put := func(number uint64) {
			t.Helper()
			if _, err := bucket.Put(t.Context(), "web", state(t, number)); err != nil {
				t.Fatal(err)
			}
		}
		first := "web 1 of 2 vips, 30000 ms and 60000, REFUSAL_RESET"
		put(1)
		want("services are not known", "r1")
		services <- parse(t, web)
		want("known", "r1", "only web", first)
		want("away", "r2")
		r.setAway("r2", false)
		time.Sleep(retryAfter)
		want("back", "r2", "only web", first)
		services <- parse(t, web)
		want("the same", "r1")
		time.Sleep(20 * time.Second)
		want("again, and again", "r1", first, first)
		put(2)
		want("an epoch", "r1", "web 2 of 2 vips, 30000 ms and 60000, REFUSAL_RESET")
		services <- parse(t, "name: web\nvip: 192.0.2.80\ngroup: 239.1.1.1\nports: [tcp/80]\n")
		want("another mode", "r1")
		time.Sleep(leaveAfter)
		want("what takes its users has begun", "r1", "web withdraw")
		time.Sleep(time.Hour)
		want("no more", "r1")
		services <- parse(t, web)
		want("tags again", "r1", "web 2 of 2 vips, 30000 ms and 60000, REFUSAL_RESET")
		services <- parse(t, "name: web\nvip: 192.0.2.80\ngroup: 239.1.1.1\nports: [tcp/80]\n")
		services <- parse(t, web)
		time.Sleep(leaveAfter)
		want("thought better of", "r1", "web 2 of 2 vips, 30000 ms and 60000, REFUSAL_RESET")
		services <- parse(t, web+"steering: reactive\n")
		want("reactive", "r1", "web 2 of 2 vips, 30000 ms and 60000, REFUSAL_RESET, reactive")
		r.setAway("r1", true)
		if err := bucket.Delete(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		want("deleted while it is away", "r1")
		r.setAway("r1", false)
		time.Sleep(retryAfter)
		want("deleted", "r1", "web nobody, reactive")
		services <- nil
		want("no service", "r1", "web withdraw")
		services <- parse(t, web)
		want("a new one", "r1", "web nobody")
		put(3)
		want("its first epoch", "r1", strings.Replace(first, "web 1", "web 3", 1))
	})
}
