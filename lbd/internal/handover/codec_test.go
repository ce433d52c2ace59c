package handover_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/epoch"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"

	"github.com/manycast/manycast/lbd/internal/handover"
)

func flow(n int) handover.Flow {
	return handover.Flow{
		Local:  netip.MustParseAddrPort("192.0.2.1:443"),
		Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 40000),
	}
}

func flow6() handover.Flow {
	return handover.Flow{Local: netip.MustParseAddrPort("[2001:db8::1]:443"), Remote: netip.MustParseAddrPort("[2001:db8:1::2]:50000")}
}

var (
	id      = handover.ID{Giver: "s1", Boot: 1 << 63, Number: 7}
	second  = epoch.Epoch{Term: 3, Number: 17}
	someWhy = handover.Why{Reason: handover.Kernel, Text: "urgent data"}
)

func messages() []handover.Message {
	return []handover.Message{
		handover.Offer{Transfer: handover.Transfer{ID: id, Flow: flow(1)}, Service: "web", Epoch: second},
		handover.Offer{Transfer: handover.Transfer{ID: id, Flow: flow6()}, Service: "web", Epoch: second},
		handover.Ready{ID: id}, handover.Took{ID: id},
		handover.Refused{ID: id, Why: someWhy}, handover.Cancel{ID: id, Why: someWhy}, handover.Failed{ID: id, Why: someWhy},
	}
}

func TestMessagesComeBack(t *testing.T) {
	for _, m := range messages() {
		got, err := handover.DecodeMessage(handover.EncodeMessage(m))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
	}
}

func TestWordsComeBack(t *testing.T) {
	f := flow6()
	for _, a := range []handover.Ask{
		{Service: "web", Epoch: second, From: []string{"s1", "s2"}, Address: "10.0.0.3:8465"},
		{Service: "web", Epoch: second, Flow: &f, Address: "[fd00::1]:8465", Again: 7},
	} {
		if got, err := handover.DecodeAsk(handover.EncodeWord(a)); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v came back as %+v, %v", a, got, err)
		}
	}
	q := handover.Query{ID: id, Taker: "s2", Boot: 9}
	if got, err := handover.DecodeQuery(handover.EncodeWord(q)); err != nil || got != q {
		t.Errorf("%+v came back as %+v, %v", q, got, err)
	}
	for _, fate := range []handover.Fate{handover.Taken, handover.Never, handover.Untold} {
		v := handover.Verdict{ID: id, Fate: fate}
		if got, err := handover.DecodeVerdict(handover.EncodeWord(v)); err != nil || got != v {
			t.Errorf("%+v came back as %+v, %v", v, got, err)
		}
	}
}

// TestWordsOfNewerVersions: what a newer server adds to a word is not looked at; a verdict that this version does not know is none.
func TestWordsOfNewerVersions(t *testing.T) {
	newer := func(w handover.Word) []byte {
		return protowire.AppendBytes(protowire.AppendTag(handover.EncodeWord(w), 1000, protowire.BytesType), []byte("new"))
	}
	ask := handover.Ask{Service: "web", Epoch: second, From: []string{"s1"}, Address: "10.0.0.3:8465", Again: 3}
	if got, err := handover.DecodeAsk(newer(ask)); err != nil || !reflect.DeepEqual(got, ask) {
		t.Errorf("%+v, %v", got, err)
	}
	query := handover.Query{ID: id, Taker: "s2", Boot: 9}
	if got, err := handover.DecodeQuery(newer(query)); err != nil || got != query {
		t.Errorf("%+v, %v", got, err)
	}
	verdict := handover.Verdict{ID: id, Fate: handover.Never}
	if got, err := handover.DecodeVerdict(newer(verdict)); err != nil || got != verdict {
		t.Errorf("%+v, %v", got, err)
	}
	verdict.Fate = handover.Untold + 1
	if got, err := handover.DecodeVerdict(handover.EncodeWord(verdict)); !errors.Is(err, handover.ErrMalformed) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	m := handover.Failed{ID: id, Why: handover.Why{Reason: handover.Late, Text: strings.Repeat("é", 500) + "\xff"}}
	got, err := handover.DecodeMessage(handover.EncodeMessage(m))
	if err != nil || len(got.(handover.Failed).Why.Text) > handover.MaxText {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMalformed(t *testing.T) {
	whole := func() *handoverv1.Offer {
		return handover.EncodeMessage(messages()[0]).GetOffer()
	}
	for what, change := range map[string]func(*handoverv1.Offer){
		"no transfer":   func(o *handoverv1.Offer) { o.Transfer = nil },
		"no number":     func(o *handoverv1.Offer) { o.Transfer.Number = 0 },
		"no giver":      func(o *handoverv1.Offer) { o.Transfer.Giver = "" },
		"long giver":    func(o *handoverv1.Offer) { o.Transfer.Giver = strings.Repeat("x", 64) },
		"no flow":       func(o *handoverv1.Offer) { o.Flow = nil },
		"short address": func(o *handoverv1.Offer) { o.Flow.Local = o.Flow.Local[1:] },
		"no port":       func(o *handoverv1.Offer) { o.Flow.Local = []byte{10, 0, 0, 1, 0, 0} },
		"two families":  func(o *handoverv1.Offer) { o.Flow.Local = append(make([]byte, 15), 1, 1, 1) },
		"mapped address": func(o *handoverv1.Offer) {
			o.Flow.Local = append(append(make([]byte, 10), 255, 255), 10, 0, 0, 1, 1, 1)
		},
		"no service":   func(o *handoverv1.Offer) { o.Service = "" },
		"long service": func(o *handoverv1.Offer) { o.Service = strings.Repeat("x", 254) },
	} {
		o := whole()
		change(o)
		m, err := handover.DecodeMessage(&handoverv1.Message{About: &handoverv1.Message_Offer{Offer: o}})
		if !errors.Is(err, handover.ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	many := handover.Ask{Service: "web", From: make([]string, handover.MaxGivers+1), Address: "10.0.0.3:8465"}
	for what, body := range map[string][]byte{
		"many givers": handover.EncodeWord(many), "no address": handover.EncodeWord(handover.Ask{Service: "web"}), "garbage": {0xff},
	} {
		if a, err := handover.DecodeAsk(body); !errors.Is(err, handover.ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, a, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		body, _ := proto.Marshal(handover.EncodeMessage(m))
		f.Add(body)
	}
	fl := flow(1)
	f.Add(handover.EncodeWord(handover.Ask{Service: "web", Epoch: second, Flow: &fl, Address: "10.0.0.3:8465"}))
	f.Add(handover.EncodeWord(handover.Query{ID: id, Taker: "s2", Boot: 9}))
	f.Fuzz(func(t *testing.T, body []byte) {
		if a, err := handover.DecodeAsk(body); err == nil {
			if again, err := handover.DecodeAsk(handover.EncodeWord(a)); err != nil || !reflect.DeepEqual(again, a) {
				t.Fatalf("%+v came back as %+v, %v", a, again, err)
			}
		}
		handover.DecodeQuery(body)
		handover.DecodeVerdict(body)
		var p handoverv1.Message
		if proto.Unmarshal(body, &p) != nil {
			return
		}
		m, err := handover.DecodeMessage(&p)
		if err != nil {
			return
		}
		if again, err := handover.DecodeMessage(handover.EncodeMessage(m)); err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v came back as %+v, %v", m, again, err)
		}
	})
}
