package binder

import (
	"cmp"
	"slices"
	"sync"

	"github.com/manycast/manycast/lbd/internal/pins"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// held notes which words routers have, and so whose pins all of them hold. Any goroutine may use it.
type held struct {
	routers []string

	mu   sync.Mutex
	took map[string]map[string]*tdpdv1.UserBinding // by service and router: the last one
	said map[string]uint64                         // by the key of pins: the last revision of which it was said
}

func newHeld(routers []string) *held {
	return &held{routers: routers, took: map[string]map[string]*tdpdv1.UserBinding{}, said: map[string]uint64{}}
}

// take notes that a router has a word.
func (h *held) take(router, service string, word *tdpdv1.UserBinding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if withdraws(word) {
		delete(h.took, service)
		return
	}
	if h.took[service] == nil {
		h.took[service] = map[string]*tdpdv1.UserBinding{}
	}
	h.took[service][router] = word
}

// news are the revisions that all routers hold now, each once.
func (h *held) news(want wanted) (all []pins.Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.said
	h.said = map[string]uint64{}
	for service, revisions := range want.pins {
		word := want.words[service]
		waits := word != nil && slices.ContainsFunc(h.routers, func(r string) bool { return h.took[service][r] != word })
		for server, revision := range revisions {
			key := pins.Key(service, server)
			if h.said[key] = was[key]; !waits && was[key] != revision {
				h.said[key] = revision
				all = append(all, pins.Answer{Service: service, Server: server, Revision: revision, Held: true})
			}
		}
	}
	slices.SortFunc(all, func(a, b pins.Answer) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Server, b.Server))
	})
	return all
}
