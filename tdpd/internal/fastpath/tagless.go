package fastpath

import (
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/manycast/manycast/tdpd/internal/vips"
)

// taglessPause is between two reads of what the programs tell: 50,000 packets a second are told of at most. What finds no room meanwhile is
// told when the user sends again.
const taglessPause = 20 * time.Millisecond

// Tagless has packets that came without a tag, for VIPs that vips.Users' Tell names.
func (b *Backend) Tagless() <-chan []vips.Tagless { return b.tagless }

// listen takes what the programs tell of.
func (b *Backend) listen() {
	for {
		some, err := b.tells.Read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			b.log.Error("fast path: packets without a tag are not noticed any more", "err", err)
			return
		}
		select {
		case <-b.done:
			return
		case b.tagless <- b.resolve(some):
		}
		select {
		case <-b.done:
			return
		case <-time.After(taglessPause):
		}
	}
}

// resolve finds the addresses of who sent packets.
func (b *Backend) resolve(some []Tagless) []vips.Tagless {
	b.mu.Lock()
	table := b.table
	b.mu.Unlock()
	type sender struct {
		iface int
		mac   string
	}
	known := map[sender][]netip.Addr{}
	out := make([]vips.Tagless, len(some))
	for i, t := range some {
		who := sender{t.Interface, string(t.From)}
		from, is := known[who]
		if !is {
			from = table.Addresses(t.Interface, t.From)
			known[who] = from
		}
		out[i] = vips.Tagless{VIP: t.VIP, User: t.User, Interface: t.Interface, From: from}
	}
	return out
}
