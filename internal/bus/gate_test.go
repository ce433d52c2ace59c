package bus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestRolesCannotLendTheServersVoice: an agent that turns asks the server to send what it wrote into its own bucket to where it
// may not write, by all ways that the server has.
func TestRolesCannotLendTheServersVoice(t *testing.T) {
	s := newTestServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	allocations := s.connect("admin").Bucket(BucketConfig{Name: BucketAllocations})
	if _, err := allocations.Put(ctx, "web", []byte("good")); err != nil {
		t.Fatal(err)
	}
	const target = "$KV.allocations.web"
	consumer := func(verb, deliver string) []byte {
		body, err := json.Marshal(map[string]any{"stream_name": "KV_servers", verb: map[string]any{
			"name": "x", "durable_name": "x", "DELIVER_subject": deliver, "ack_policy": "none", "mem_storage": true,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	for name, m := range map[string]*nats.Msg{
		"answer of the server":   {Subject: "$JS.API.INFO", Reply: target},
		"answer with an entry":   {Subject: "$JS.API.DIRECT.GET.KV_servers.$KV.servers.web.s1", Reply: target},
		"answer with headers":    {Subject: "$JS.API.INFO", Reply: target, Header: nats.Header{"A": {"b"}}},
		"acknowledgement":        {Subject: "$KV.servers.web.s1", Reply: target, Data: []byte("evil")},
		"another role's inbox":   {Subject: "$JS.API.INFO", Reply: "_INBOX_director.x"},
		"like the role's inbox":  {Subject: "$JS.API.INFO", Reply: "_INBOX_agentx.x"},
		"consumer":               {Subject: "$JS.API.CONSUMER.CREATE.KV_servers.x", Data: consumer("config", target)},
		"consumer, spelled LOUD": {Subject: "$JS.API.CONSUMER.CREATE.KV_servers.x", Data: consumer("CONFIG", target)},
		"consumer with headers": {
			Subject: "$JS.API.CONSUMER.CREATE.KV_servers.x", Data: consumer("config", target), Header: nats.Header{"A": {"b"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			agent := s.connect("agent")
			if _, err := agent.Bucket(BucketConfig{Name: BucketServers}).Put(ctx, "web.s1", []byte("evil")); err != nil {
				t.Fatal(err)
			}
			lost := agent.nc.StatusChanged(nats.RECONNECTING)
			if err := agent.nc.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
			_ = agent.nc.Flush() // fails when the bus closes the connection
			select {
			case <-lost:
			case <-ctx.Done():
				t.Error("the connection was not closed")
			}
			if e, err := allocations.Get(ctx, "web"); err != nil || string(e.Value) != "good" {
				t.Errorf("the allocation is %q, %v", e.Value, err)
			}
		})
	}
	agent := s.connect("agent")
	if all, err := agent.Bucket(BucketConfig{Name: BucketServers}).List(ctx); err != nil || len(all) != 1 {
		t.Errorf("an honest agent reads %v, %v", all, err)
	}
}

// TestGateFilter: what goes through, in which form, and what ends the connection.
func TestGateFilter(t *testing.T) {
	const connect = `CONNECT {"nkey":"UAGENT"}` + "\r\n"
	g := &gate{role: map[string]string{"UAGENT": "agent", "UADMIN": "admin"}}
	for name, c := range map[string]struct{ in, want, refused string }{
		"usual": {
			in:   connect + "PING\r\nSUB _INBOX_agent.a.*  1\r\npub lbd.x 2\r\nhi\r\nPUB $JS.API.INFO _INBOX_agent.a.b 0\r\n\r\nPONG\r\n",
			want: connect + "PING\r\nSUB _INBOX_agent.a.* 1\r\nPUB lbd.x 2\r\nhi\r\nPUB $JS.API.INFO _INBOX_agent.a.b 0\r\n\r\nPONG\r\n",
		},
		"headers":          {in: connect + "HPUB a 3 5\r\nH\r\nhi\r\n", want: connect + "HPUB a 3 5\r\nH\r\nhi\r\n"},
		"operator":         {in: `CONNECT {"nkey":"UADMIN"}` + "\r\nPUB a b.c 0\r\n\r\n", want: `CONNECT {"nkey":"UADMIN"}` + "\r\nPUB a b.c 0\r\n\r\n"},
		"stranger":         {in: `CONNECT {"nkey":"U"}` + "\r\nPUB a _INBOX_agent.x 0\r\n\r\n", refused: "role nobody"},
		"other's answer":   {in: connect + "PUB a b 0\r\n\r\n", refused: "sent to b"},
		"tab":              {in: connect + "PUB a\tb 0\r\n\r\n", refused: "sent to b"},
		"no CONNECT":       {in: "PUB a 0\r\n\r\n", refused: "connect first"},
		"second CONNECT":   {in: connect + `CONNECT {"nkey":"UADMIN"}` + "\r\n", refused: "twice"},
		"last key counts":  {in: `CONNECT {"nkey":"UADMIN","NKEY":"UAGENT"}` + "\r\nPUB a b 0\r\n\r\n", refused: "role agent"},
		"too long":         {in: connect + "PUB a 1\r\nab\r\n", refused: "longer than its size"},
		"hidden operation": {in: connect + "PUB a 0\r\n\rPUB a b 0\r\n\r\n", refused: "longer than its size"},
		"negative size":    {in: connect + "PUB a -1\r\n\r\n", refused: "size"},
		"headers' size":    {in: connect + "HPUB a 9 5\r\nH\r\nhi\r\n", refused: "headers"},
		"arguments":        {in: connect + "PUB a b c 0\r\n\r\n", refused: "arguments"},
		"leaf node":        {in: connect + "LS+ a\r\n", refused: "operation"},
		"carriage return":  {in: connect + "PING\rPUB a b 0\r\n", refused: "control characters"},
		"endless":          {in: connect + "SUB " + strings.Repeat("a", controlLine), refused: "too long"},
		"consumer":         {in: connect + "PUB $JS.API.CONSUMER.CREATE.S 99999\r\n", refused: "too many"},
		"no consumer":      {in: connect + "PUB $JS.API.CONSUMER.CREATE.S 2\r\n[]\r\n", refused: "a consumer"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := g.filter(bufio.NewReaderSize(strings.NewReader(c.in), controlLine), &out)
			if c.refused != "" {
				if refused := errRefused(""); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("%v, want %q", err, c.refused)
				}
				return
			}
			if out.String() != c.want {
				t.Errorf("%q\nwant %q (%v)", out.String(), c.want, err)
			}
		})
	}
}

// FuzzGate: what goes through goes through again unchanged.
func FuzzGate(f *testing.F) {
	f.Add([]byte("PING\r\nPUB a _INBOX_agent.x 1\r\nx\r\nHPUB a 1 1\r\nx\r\n"))
	f.Add([]byte(fmt.Sprintf("PUB $JS.API.CONSUMER.CREATE.S %d\r\n{}\r\n", 2)))
	g := &gate{role: map[string]string{"UAGENT": "agent"}}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = append([]byte("CONNECT {\"nkey\":\"UAGENT\"}\r\n"), data...)
		var once, twice bytes.Buffer
		if err := g.filter(bufio.NewReaderSize(bytes.NewReader(data), controlLine), &once); err == nil {
			t.Fatal("no end")
		}
		_ = g.filter(bufio.NewReaderSize(bytes.NewReader(once.Bytes()), controlLine), &twice)
		if !bytes.HasPrefix(once.Bytes(), twice.Bytes()) {
			t.Fatalf("%q then %q", once.Bytes(), twice.Bytes())
		}
	})
}
