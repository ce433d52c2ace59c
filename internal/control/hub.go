package control

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/alloc"
)

// Hub is a control channel within one process, for tests: members hear each other's heartbeats at once, unless they are cut off.
// It works on the clock of testing/synctest.
type Hub struct {
	heartbeat time.Duration
	silence   time.Duration

	mu      sync.Mutex
	members map[string]*HubMember
	cut     map[[2]string]bool
	lost    func(from, to string, kind Kind) bool
	boots   uint64
}

// stepsPerHeartbeat is how precisely a Hub keeps time.
const stepsPerHeartbeat = 5

// NewHub returns a Hub without members.
func NewHub(heartbeat, silence time.Duration) *Hub {
	return &Hub{heartbeat: heartbeat, silence: silence, members: map[string]*HubMember{}, cut: map[[2]string]bool{}}
}

// Cut makes from's frames not reach to, or reach it again.
func (h *Hub) Cut(from, to string, cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut[[2]string{from, to}] = cut
}

// Lose makes the hub lose the messages that lost says yes to; nil: none.
func (h *Hub) Lose(lost func(from, to string, kind Kind) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = lost
}

// HubMember is a member's Channel.
type HubMember struct {
	hub  *Hub
	self Member
	beat func()
	kick chan struct{}
	end  chan struct{}
	done chan struct{}

	// Under the hub's lock.
	status  Status
	mute    bool
	pause   time.Time // others do not take it for silent before
	peers   map[string]*Member
	events  []Event
	handle  map[int]func(Event)
	fresh   []int // listeners that have yet to hear of all members; messages until then are not for them
	handles int
}

var _ Channel = (*HubMember)(nil)

// Join adds a member, in the place of one of its name; of who the name, role, leader flag and address count. beat is called after
// each heartbeat; it may be nil. Until SetStatus the member says that it is not well.
func (h *Hub) Join(who Member, beat func()) *HubMember {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boots++
	who.Boot = h.boots
	m := &HubMember{
		hub: h, self: who, beat: beat, kick: make(chan struct{}, 1), end: make(chan struct{}), done: make(chan struct{}),
		peers: map[string]*Member{}, handle: map[int]func(Event){},
	}
	h.members[who.Name] = m
	go m.run()
	return m
}

// Leave ends the member as a kill does: nobody is told.
func (m *HubMember) Leave() {
	m.hub.mu.Lock()
	if m.hub.members[m.self.Name] == m {
		delete(m.hub.members, m.self.Name)
	}
	m.hub.mu.Unlock()
	close(m.end)
	<-m.done
}

// Mute makes the member's heartbeats not leave, or leave again; it hears the others.
func (m *HubMember) Mute(mute bool) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	m.mute = mute
}

// Pause says that the member restarts: others do not take it for silent before d is over.
func (m *HubMember) Pause(d time.Duration) error {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	m.pause = time.Now().Add(d)
	m.report()
	return nil
}

// Silence implements Channel.
func (m *HubMember) Silence() time.Duration { return m.hub.silence }

// SetStatus implements Channel.
func (m *HubMember) SetStatus(s Status) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	isNews := s.OK != m.status.OK
	m.status = Status{s.OK, s.Why, maps.Clone(s.Loads)}
	if isNews {
		m.report()
	}
}

// Send implements Channel. Receivers drop what the sender's certificate would not allow.
func (m *HubMember) Send(kind Kind, body []byte) error {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	if m.mute {
		return errors.New("control channel: no interface")
	}
	if isLeaders := kind == KindAnnounce || kind == KindCommit; isLeaders && !m.self.Leader || !isLeaders && m.self.Role != Server {
		return nil
	}
	for _, peer := range m.reached() {
		known := peer.peers[m.self.Name]
		if known == nil || m.hub.lost != nil && m.hub.lost(m.self.Name, peer.self.Name, kind) {
			continue
		}
		peer.put(Received{From: *known, Kind: kind, Body: slices.Clone(body)})
	}
	return nil
}

// Listen implements Channel.
func (m *HubMember) Listen(handle func(Event)) (stop func()) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	id := m.handles
	m.handles++
	m.handle[id], m.fresh = handle, append(m.fresh, id)
	m.wake()
	return func() {
		m.hub.mu.Lock()
		defer m.hub.mu.Unlock()
		delete(m.handle, id)
	}
}

func (m *HubMember) run() {
	defer close(m.done)
	tick := time.NewTicker(m.hub.heartbeat / stepsPerHeartbeat)
	defer tick.Stop()
	for step := 0; ; {
		select {
		case <-m.end:
			return
		case <-m.kick:
		case <-tick.C:
			m.step(step%stepsPerHeartbeat == 0)
			step++
		}
		m.dispatch()
	}
}

func (m *HubMember) step(beats bool) {
	m.hub.mu.Lock()
	beats = beats && !m.mute
	if beats {
		m.report()
	}
	m.forget(time.Now())
	m.hub.mu.Unlock()
	if beats && m.beat != nil {
		m.beat()
	}
}

// report tells all others of this member.
func (m *HubMember) report() {
	if m.mute {
		return
	}
	for _, peer := range m.reached() {
		peer.hear(time.Now(), m)
	}
}

// reached are the other members that hear this one, in order of names.
func (m *HubMember) reached() []*HubMember {
	var out []*HubMember
	if m.hub.members[m.self.Name] != m {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(m.hub.members)) {
		if name != m.self.Name && !m.hub.cut[[2]string{m.self.Name, name}] {
			out = append(out, m.hub.members[name])
		}
	}
	return out
}

func (m *HubMember) hear(now time.Time, from *HubMember) {
	old, known := m.peers[from.self.Name]
	p := from.self
	p.Heard, p.Since, p.Paused, p.Loads, p.Via = now, now, from.pause, from.status.Loads, []string{"hub"}
	switch p.Health, p.Why = Unwell, from.status.Why; {
	case from.status.OK && from.isDeaf():
		p.Why = Deaf
	case from.status.OK:
		p.Health, p.Why = Available, ""
	}
	if known && old.Health == p.Health {
		p.Since = old.Since
	}
	m.peers[p.Name] = &p
	if !known || old.Health != p.Health || old.Why != p.Why || old.Boot != p.Boot || !old.Paused.Equal(p.Paused) || !sameLoads(old.Loads, p.Loads) {
		m.put(Changed{p})
	}
}

// isDeaf reports whether nobody is heard of those that were.
func (m *HubMember) isDeaf() bool {
	for _, p := range m.peers {
		if p.Health != Silent {
			return false
		}
	}
	return len(m.peers) > 0
}

func sameLoads(a, b map[string]alloc.Load) bool {
	return maps.EqualFunc(a, b, func(x, y alloc.Load) bool {
		return x.Connections == y.Connections && x.Accepts == y.Accepts && x.Bytes == y.Bytes && x.CPU == y.CPU
	})
}

// forget makes those silent that were not heard for long enough.
func (m *HubMember) forget(now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(m.peers)) {
		p := m.peers[name]
		if p.Health == Silent || now.Sub(p.Heard) < m.hub.silence || now.Before(p.Paused) {
			continue
		}
		silent := *p
		silent.Health, silent.Since, silent.Why, silent.Via = Silent, now, "", nil
		m.peers[name] = &silent
		m.put(Changed{silent})
	}
}

func (m *HubMember) put(e Event) {
	m.events = append(m.events, e)
	m.wake()
}

func (m *HubMember) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// dispatch calls the listeners, without the hub's lock.
func (m *HubMember) dispatch() {
	m.hub.mu.Lock()
	events, fresh := m.events, m.fresh
	m.events, m.fresh = nil, nil
	handlers := maps.Clone(m.handle)
	var known []Event
	if len(fresh) > 0 {
		for _, name := range slices.Sorted(maps.Keys(m.peers)) {
			known = append(known, Changed{*m.peers[name]})
		}
	}
	m.hub.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(handlers)) {
		all := events
		if slices.Contains(fresh, id) {
			all = known
		}
		for _, e := range all {
			handlers[id](e)
		}
	}
}
