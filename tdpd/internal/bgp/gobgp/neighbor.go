package gobgp

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// mark is the description of neighbors of ours, which no two sides tell each other.
const mark = "manycast"

// encodeNeighbor is one of ours, with all defaults: older speakers take a neighbor for changed that is told without. restarted: see Options.Restarted.
func encodeNeighbor(n neighborAs, restarted bool) *api.Peer {
	r := n.restart
	p := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: n.Address.String(), PeerAsn: n.AS, LocalAsn: n.as, Type: api.PeerType_EXTERNAL, AuthPassword: n.Password, Description: mark,
			AdminDown: n.Down,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			ConnectRetry: seconds(n.ConnectRetry), HoldTime: seconds(n.Hold), KeepaliveInterval: seconds(n.Keepalive), IdleHoldTimeAfterReset: 1,
		}},
		Transport: &api.Transport{RemotePort: uint32(n.Port), PassiveMode: n.Passive},
	}
	if n.AS == n.as {
		p.Conf.Type = api.PeerType_INTERNAL
	}
	switch {
	case n.Local.IsValid():
		p.Transport.LocalAddress = n.Local.String()
	case n.Address.Is4():
		p.Transport.LocalAddress = netip.IPv4Unspecified().String()
	default:
		p.Transport.LocalAddress = netip.IPv6Unspecified().String()
	}
	switch {
	case n.GTSM:
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: uint32(256 - n.Hops)}
	case n.Hops > 1:
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(n.Hops)}
	}
	if r.Time > 0 {
		p.GracefulRestart = &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(seconds(r.Time)), DeferralTime: uint32(seconds(r.Deferral)), LonglivedEnabled: r.LongLived > 0, LocalRestarting: restarted,
		}
	}
	for _, f := range n.Families {
		a := &api.AfiSafi{Config: &api.AfiSafiConfig{Family: toFamily(f), Enabled: true}}
		if n.limited {
			a.PrefixLimits = &api.PrefixLimit{Family: toFamily(f), MaxPrefixes: n.MaxPrefixes, ShutdownThresholdPct: 100}
		}
		if r.Time > 0 {
			a.MpGracefulRestart = &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}}
			if r.LongLived > 0 {
				a.LongLivedGracefulRestart = &api.LongLivedGracefulRestart{
					Config: &api.LongLivedGracefulRestartConfig{Enabled: true, RestartTime: uint32(seconds(r.LongLived))},
				}
			}
		}
		p.AfiSafis = append(p.AfiSafis, a)
	}
	return p
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// Neighbors implements bgp.Speaker.
func (c *Client) Neighbors(ctx context.Context) ([]bgp.NeighborState, error) {
	stream, err := c.api.ListPeer(ctx, &api.ListPeerRequest{})
	if err != nil {
		return nil, c.failed("neighbors", err)
	}
	var all []bgp.NeighborState
	err = each(stream, func(r *api.ListPeerResponse) bool {
		all = append(all, decodeNeighbor(r.GetPeer()))
		return true
	})
	slices.SortFunc(all, func(a, b bgp.NeighborState) int { return a.Address.Compare(b.Address) })
	return all, c.failed("neighbors", err)
}

// neighbor is one of those; bgp.ErrNoNeighbor: there is none of this address.
func (c *Client) neighbor(ctx context.Context, a netip.Addr) (bgp.NeighborState, error) {
	all, err := c.Neighbors(ctx)
	if err != nil {
		return bgp.NeighborState{}, err
	}
	if at := slices.IndexFunc(all, func(n bgp.NeighborState) bool { return n.Address == a }); at >= 0 {
		return all[at], nil
	}
	return bgp.NeighborState{}, bgp.ErrNoNeighbor
}

var sessionStates = map[api.PeerState_SessionState]bgp.SessionState{
	api.PeerState_IDLE: bgp.Idle, api.PeerState_CONNECT: bgp.Connect, api.PeerState_ACTIVE: bgp.Active, api.PeerState_OPENSENT: bgp.OpenSent,
	api.PeerState_OPENCONFIRM: bgp.OpenConfirm, api.PeerState_ESTABLISHED: bgp.Established,
}

func decodeNeighbor(p *api.Peer) bgp.NeighborState {
	st, timers := p.GetState(), p.GetTimers().GetState()
	n := bgp.NeighborState{
		AS: st.GetPeerAsn(), State: cmp.Or(sessionStates[st.GetSessionState()], bgp.Idle), Flaps: st.GetFlops(),
		Restarting: p.GetGracefulRestart().GetPeerRestarting(), OverLimit: st.GetAdminState() == api.PeerState_PFX_CT,
		Down: st.GetAdminState() == api.PeerState_DOWN,
		Hold: time.Duration(min(timers.GetNegotiatedHoldTime(), 65535)) * time.Second,
		Sent: decodeMessages(st.GetMessages().GetSent()), Received: decodeMessages(st.GetMessages().GetReceived()),
	}
	n.Address, _ = netip.ParseAddr(cmp.Or(st.GetNeighborAddress(), p.GetConf().GetNeighborAddress()))
	n.RouterID, _ = netip.ParseAddr(st.GetRouterId())
	if n.AS == 0 {
		n.AS = p.GetConf().GetPeerAsn()
	}
	if n.State == bgp.Established {
		n.Since = moment(timers.GetUptime())
	} else {
		n.Since = moment(timers.GetDowntime())
	}
	agreed := agreedFamilies(st)
	for _, a := range p.GetAfiSafis() {
		f, err := fromFamily(a.GetConfig().GetFamily())
		if err != nil {
			continue
		}
		n.Families = append(n.Families, bgp.FamilyState{
			Family: f, Agreed: n.State == bgp.Established && slices.Contains(agreed, f), Received: a.GetState().GetReceived(),
		})
	}
	slices.SortFunc(n.Families, func(a, b bgp.FamilyState) int { return cmp.Compare(a.Family, b.Family) })
	return n
}

// agreedFamilies are those that the neighbor has said that it speaks.
func agreedFamilies(st *api.PeerState) (all []bgp.Family) {
	for _, c := range st.GetRemoteCap() {
		m, err := c.UnmarshalNew()
		if err != nil {
			continue
		}
		if multi, is := m.(*api.MultiProtocolCapability); is {
			if f, err := fromFamily(multi.GetFamily()); err == nil {
				all = append(all, f)
			}
		}
	}
	return all
}

// moment is a time; the zero value where there is none.
func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() || t.GetSeconds() <= 0 {
		return time.Time{}
	}
	return t.AsTime()
}

func decodeMessages(m *api.Message) bgp.Messages {
	return bgp.Messages{Updates: m.GetUpdate(), Notifications: m.GetNotification(), Total: m.GetTotal()}
}
