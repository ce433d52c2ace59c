package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/epoch"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Bounds of what is decoded.
const (
	MaxText    = 256  // bytes of a Why
	MaxGivers  = 1024 // that an Ask names
	maxService = 253  // bytes of a service's name
	maxAddress = 64   // bytes of a link's address
)

// ErrMalformed is what errors of decoding wrap.
var ErrMalformed = errors.New("malformed message of a handover")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// EncodeMessage is a message as it stands on the link, but for State and Coming: the link takes states apart.
func EncodeMessage(m Message) *handoverv1.Message {
	p := &handoverv1.Message{}
	switch m := m.(type) {
	case Offer:
		p.About = &handoverv1.Message_Offer{Offer: &handoverv1.Offer{
			Transfer: encodeID(m.ID), Flow: encodeFlow(m.Flow), Service: m.Service, Epoch: alloc.EpochToProto(m.Epoch),
		}}
	case Ready:
		p.About = &handoverv1.Message_Ready{Ready: &handoverv1.Ready{Transfer: encodeID(m.ID)}}
	case Took:
		p.About = &handoverv1.Message_Taken{Taken: &handoverv1.Taken{Transfer: encodeID(m.ID)}}
	case Refused:
		p.About = &handoverv1.Message_Refused{Refused: encodeRefusal(m.ID, m.Why)}
	case Cancel:
		p.About = &handoverv1.Message_Cancel{Cancel: encodeRefusal(m.ID, m.Why)}
	case Failed:
		p.About = &handoverv1.Message_Failed{Failed: encodeRefusal(m.ID, m.Why)}
	default:
		panic(fmt.Sprintf("handover: %T is no message of one frame", m)) // a mistake of the link's
	}
	return p
}

// DecodeMessage is the other way round. Errors wrap ErrMalformed.
func DecodeMessage(p *handoverv1.Message) (Message, error) {
	switch about := p.GetAbout().(type) {
	case *handoverv1.Message_Offer:
		return decodeOffer(about.Offer)
	case *handoverv1.Message_Ready:
		id, err := DecodeID(about.Ready.GetTransfer())
		return Ready{id}, err
	case *handoverv1.Message_Taken:
		id, err := DecodeID(about.Taken.GetTransfer())
		return Took{id}, err
	case *handoverv1.Message_Refused:
		id, why, err := decodeRefusal(about.Refused)
		return Refused{id, why}, err
	case *handoverv1.Message_Cancel:
		id, why, err := decodeRefusal(about.Cancel)
		return Cancel{id, why}, err
	case *handoverv1.Message_Failed:
		id, why, err := decodeRefusal(about.Failed)
		return Failed{id, why}, err
	}
	return nil, malformed("a message about %T", p.GetAbout())
}

func decodeOffer(p *handoverv1.Offer) (Message, error) {
	id, err := DecodeID(p.GetTransfer())
	if err != nil {
		return nil, err
	}
	flow, err := decodeFlow(p.GetFlow())
	if err != nil {
		return nil, err
	}
	if err := checkService(p.GetService()); err != nil {
		return nil, err
	}
	return Offer{Transfer{id, flow}, p.GetService(), decodeEpoch(p.GetEpoch())}, nil
}

// EncodeWord is the body of a word on the control channel.
func EncodeWord(w Word) []byte {
	var p proto.Message
	switch w := w.(type) {
	case Ask:
		a := &handoverv1.Ask{Service: w.Service, Epoch: alloc.EpochToProto(w.Epoch), From: w.From, Address: w.Address, Again: w.Again}
		if w.Flow != nil {
			a.Flow = encodeFlow(*w.Flow)
		}
		p = a
	case Query:
		p = &handoverv1.Query{Transfer: encodeID(w.ID), Taker: w.Taker, Boot: w.Boot}
	case Verdict:
		p = &handoverv1.Verdict{Transfer: encodeID(w.ID), Fate: handoverv1.Fate(w.Fate)}
	}
	body, err := proto.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("handover: encode %T: %v", w, err)) // names are UTF-8, as whoever made them checked
	}
	return body
}

// DecodeAsk decodes the body of an Ask. Errors wrap ErrMalformed.
func DecodeAsk(body []byte) (Ask, error) {
	var p handoverv1.Ask
	if err := proto.Unmarshal(body, &p); err != nil {
		return Ask{}, malformed("ask: %v", err)
	}
	if err := checkService(p.GetService()); err != nil {
		return Ask{}, err
	}
	a := Ask{Service: p.GetService(), Epoch: decodeEpoch(p.GetEpoch()), From: p.GetFrom(), Address: p.GetAddress(), Again: p.GetAgain()}
	if len(a.From) > MaxGivers {
		return Ask{}, malformed("ask of %d givers, at most %d", len(a.From), MaxGivers)
	}
	for _, name := range a.From {
		if err := checkName(name); err != nil {
			return Ask{}, err
		}
	}
	if len(a.Address) > maxAddress {
		return Ask{}, malformed("address of %d bytes", len(a.Address))
	}
	if _, err := netip.ParseAddrPort(a.Address); err != nil {
		return Ask{}, malformed("address: %v", err)
	}
	if p.GetFlow() != nil {
		f, err := decodeFlow(p.GetFlow())
		if err != nil {
			return Ask{}, err
		}
		a.Flow = &f
	}
	return a, nil
}

// DecodeQuery decodes the body of a Query. Errors wrap ErrMalformed.
func DecodeQuery(body []byte) (Query, error) {
	var p handoverv1.Query
	if err := proto.Unmarshal(body, &p); err != nil {
		return Query{}, malformed("query: %v", err)
	}
	id, err := DecodeID(p.GetTransfer())
	if err != nil {
		return Query{}, err
	}
	return Query{id, p.GetTaker(), p.GetBoot()}, checkName(p.GetTaker())
}

// DecodeVerdict decodes the body of a Verdict. Errors wrap ErrMalformed.
func DecodeVerdict(body []byte) (Verdict, error) {
	var p handoverv1.Verdict
	if err := proto.Unmarshal(body, &p); err != nil {
		return Verdict{}, malformed("verdict: %v", err)
	}
	id, err := DecodeID(p.GetTransfer())
	if err != nil {
		return Verdict{}, err
	}
	if f := p.GetFate(); f < handoverv1.Fate_FATE_TAKEN || f > handoverv1.Fate_FATE_LOST {
		return Verdict{}, malformed("fate %d", f)
	}
	return Verdict{id, Fate(p.GetFate())}, nil
}

// EncodeID is a transfer's name on the wire.
func EncodeID(id ID) *handoverv1.Transfer { return encodeID(id) }

func encodeID(id ID) *handoverv1.Transfer {
	return &handoverv1.Transfer{Giver: id.Giver, Boot: id.Boot, Number: id.Number}
}

// DecodeID is the other way round. Errors wrap ErrMalformed.
func DecodeID(p *handoverv1.Transfer) (ID, error) {
	if p.GetNumber() == 0 {
		return ID{}, malformed("a transfer without a number")
	}
	return ID{p.GetGiver(), p.GetBoot(), p.GetNumber()}, checkName(p.GetGiver())
}

// EncodeFlow is a flow on the wire.
func EncodeFlow(f Flow) *handoverv1.Flow { return encodeFlow(f) }

// DecodeFlow is the other way round. Errors wrap ErrMalformed.
func DecodeFlow(p *handoverv1.Flow) (Flow, error) { return decodeFlow(p) }

func encodeFlow(f Flow) *handoverv1.Flow {
	return &handoverv1.Flow{Local: encodeEnd(f.Local), Remote: encodeEnd(f.Remote)}
}

func encodeEnd(a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(a.Addr().Unmap().AsSlice(), a.Port())
}

func decodeFlow(p *handoverv1.Flow) (Flow, error) {
	local, err := decodeEnd(p.GetLocal())
	if err != nil {
		return Flow{}, err
	}
	remote, err := decodeEnd(p.GetRemote())
	if err != nil {
		return Flow{}, err
	}
	if local.Addr().Is4() != remote.Addr().Is4() {
		return Flow{}, malformed("a flow of two families: %v, %v", local, remote)
	}
	return Flow{local, remote}, nil
}

func decodeEnd(b []byte) (netip.AddrPort, error) {
	if len(b) != 4+2 && len(b) != 16+2 {
		return netip.AddrPort{}, malformed("an end of %d bytes", len(b))
	}
	n := len(b) - 2
	addr, _ := netip.AddrFromSlice(b[:n]) // 4 or 16 bytes are one
	if port := binary.BigEndian.Uint16(b[n:]); port != 0 && !addr.Is4In6() && !addr.IsUnspecified() {
		return netip.AddrPortFrom(addr, port), nil
	}
	return netip.AddrPort{}, malformed("end %x is no end of a connection", b)
}

func encodeRefusal(id ID, w Why) *handoverv1.Refusal {
	text := w.Text
	for len(text) > MaxText || !utf8.ValidString(text) {
		text = string([]rune(text)[:min(MaxText/4, len([]rune(text)))])
	}
	return &handoverv1.Refusal{Transfer: encodeID(id), Reason: handoverv1.Reason(w.Reason), Text: text}
}

// decodeRefusal takes reasons that it does not know, for newer versions have more.
func decodeRefusal(p *handoverv1.Refusal) (ID, Why, error) {
	id, err := DecodeID(p.GetTransfer())
	if err != nil {
		return ID{}, Why{}, err
	}
	if len(p.GetText()) > MaxText {
		return ID{}, Why{}, malformed("a text of %d bytes", len(p.GetText()))
	}
	reason := Reason(255)
	if r := p.GetReason(); r >= 0 && r < handoverv1.Reason(reasons) {
		reason = Reason(r)
	}
	return id, Why{reason, p.GetText()}, nil
}

func decodeEpoch(p *allocv1.Epoch) epoch.Epoch {
	return epoch.Epoch{Term: p.GetTerm(), Number: p.GetNumber()}
}

func checkName(name string) error {
	if name == "" || len(name) > identity.MaxName {
		return malformed("a name of %d bytes", len(name))
	}
	return nil
}

func checkService(name string) error {
	if name == "" || len(name) > maxService {
		return malformed("a service's name of %d bytes", len(name))
	}
	return nil
}
