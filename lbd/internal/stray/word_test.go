package stray

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"github.com/manycast/manycast/lbd/internal/dataplane"
)

func sixOf(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestWordsThereAndBack(t *testing.T) {
	six := dataplane.Flow{User: sixOf("[2001:db8::1]:9"), VIP: sixOf("[2001:db8::80]:80")}
	asks := []Ask{ask(1, 1), {Number: 2, Service: "web", Flow: six}}
	body, err := EncodeAsks(asks)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeAsks(body); err != nil || !reflect.DeepEqual(got, asks) {
		t.Errorf("%+v, %v", got, err)
	}
	holdings := []Holding{holds(1), gone(2), {Asker: "s9", Number: 3, Flow: six}}
	if body, err = EncodeHoldings(holdings); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeHoldings(body); err != nil || !reflect.DeepEqual(got, holdings) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBadWordsAreRefused(t *testing.T) {
	mixed := dataplane.Flow{User: sixOf("[2001:db8::1]:9"), VIP: front}
	long := ask(1, 1)
	long.Frame = make([]byte, MaxFrame+1)
	for name, asks := range map[string][]Ask{
		"too many": make([]Ask, maxItems+1), "no number": {ask(0, 1)}, "no service": {{Number: 1, Flow: flowOf(1)}},
		"two families": {{Number: 1, Service: "web", Flow: mixed}}, "long frame": {long}, "no flow": {{Number: 1, Service: "web"}},
	} {
		if body, err := EncodeAsks(asks); err == nil {
			if _, err = DecodeAsks(body); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, holdings := range map[string][]Holding{
		"too many": make([]Holding, maxItems+1), "no number": {holds(0)}, "nobody": {{Number: 1, Flow: flowOf(1)}},
	} {
		if body, err := EncodeHoldings(holdings); err == nil {
			if _, err = DecodeHoldings(body); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	body, _ := EncodeAsks([]Ask{ask(1, 1), ask(2, 2)})
	f.Add(body)
	body, _ = EncodeHoldings([]Holding{holds(1), gone(2)})
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		asks, err := DecodeAsks(body)
		if err == nil {
			for _, a := range asks {
				if len(a.Frame) > MaxFrame || a.Number == 0 || a.Flow.User.Addr().Is4() != a.Flow.VIP.Addr().Is4() {
					t.Fatalf("%+v is let in", a)
				}
				newHolder(Limits{}).Asked(start, member(0), a)
			}
			if _, err := EncodeAsks(asks); err != nil {
				t.Fatal(err)
			}
		}
		holdings, err := DecodeHoldings(body)
		if err == nil {
			for _, h := range holdings {
				newAsker(Limits{}).Answered(start, member(0), h)
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(frameOf(flowOf(1), ack))
	f.Add(frameOf(dataplane.Flow{User: sixOf("[2001:db8::1]:9"), VIP: sixOf("[2001:db8::80]:80")}, ack))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if isOf(frame, flowOf(1)) && (len(frame) < ethernet+40 || len(frame) > MaxFrame) {
			t.Fatalf("%d bytes are a packet", len(frame))
		}
	})
}
