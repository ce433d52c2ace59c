package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/manycast/manycast/internal/testnet"
)

// stream sends paced, numbered packets of the owned users until stop, then returns how many.
func (r *rig) stream(stop <-chan struct{}) int {
	var users []*net.UDPConn
	for i := range 12 {
		if i%4 != 3 {
			users = append(users, r.sender(userAddr(100+i)))
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return n
		case <-tick.C:
		}
		if _, err := users[n%len(users)].WriteToUDPAddrPort([]byte(strconv.Itoa(n)), netip.AddrPortFrom(group, 9000)); err != nil {
			r.t.Errorf("packet %d: %v", n, err)
		}
	}
}

// arrived waits until all sent packets came, each once and to its server.
func (r *rig) arrived(sent int) {
	r.t.Helper()
	seen := make([]bool, sent)
	timeout := time.After(5 * time.Second)
	for n := range sent {
		select {
		case a := <-r.arrivals:
			number, err := strconv.Atoi(a.text)
			if err != nil || number >= sent || seen[number] || a.server != int(a.source.As4()[3])%4+1 {
				r.t.Errorf("%q of %v came to server %d", a.text, a.source, a.server)
				continue
			}
			seen[number] = true
		case <-timeout:
			r.t.Fatalf("%d of %d packets were lost", sent-n, sent)
		}
	}
	r.quiet()
}

func TestNetForwardingOutlivesItsProcess(t *testing.T) {
	for _, c := range []struct {
		mode        Mode
		accelerator bool
	}{{ModeSource, false}, {ModeOwner, false}, {ModeOwner, true}} {
		t.Run(fmt.Sprintf("%s accelerator %v", c.mode, c.accelerator), func(t *testing.T) {
			r := newRig(t)
			keeper := r.startHolder()
			first := r.startForwarder(c.mode, c.accelerator)
			r.expect(group, 1, 2, 3, 0)

			stop, sent := make(chan struct{}), make(chan int)
			go func() { sent <- r.stream(stop) }()
			testnet.Eventually(t, 5*time.Second, func() bool { return len(r.arrivals) > 300 }, "packets flow")
			first.Signal(syscall.SIGKILL)
			first.Wait()
			alone := len(r.arrivals)
			testnet.Eventually(t, 5*time.Second, func() bool { return len(r.arrivals) > alone+500 }, "packets flow without a process")
			second := r.startForwarder(c.mode, c.accelerator)
			taken := len(r.arrivals)
			testnet.Eventually(t, 5*time.Second, func() bool { return len(r.arrivals) > taken+300 }, "packets flow after the take-over")
			close(stop)
			r.arrived(<-sent)

			second.Signal(syscall.SIGTERM)
			if err := second.Wait(); err != nil {
				t.Fatalf("clean stop: %v\n%s", err, second.Output())
			}
			r.nothingLeft()
			keeper.Signal(syscall.SIGTERM)
			if err := keeper.Wait(); err != nil {
				t.Errorf("holder: %v", err)
			}
		})
	}
}

// A packet that comes by the wrong interface asks for an answer also before the new process has a state: what the one before left is not
// refused then.
func TestNetUpcallBeforeTheFirstState(t *testing.T) {
	r := newRig(t)
	r.startHolder()
	config := rigConfig(ModeOwner, false, r.socket, r.bpffs)
	state := State{
		Interfaces: interfaces("users", "s1", "s2", "s3"),
		Public:     []Route{{Group: publicGrp, Source: userAddr(100), In: []string{"users"}, Out: []string{"s1"}}},
	}
	first := r.openOnce(config)
	r.set(first, state)
	wrong := mroute.Upcall{Kind: mroute.WrongInterface, Source: userAddr(100), Group: publicGrp, VIF: first.numbers["s2"]}
	r.closeKeeping(first)

	second := r.openOnce(config)
	if err := r.router.Do(func() error { return second.upcall(wrong) }); err != nil {
		t.Fatal(err)
	}
	r.set(second, state)
	r.send(publicGrp, userAddr(100), "forwarded")
	if a := r.next(); a.server != 1 || a.text != "forwarded" {
		t.Errorf("%+v", a)
	}
	r.quiet()
	if err := r.router.Do(func() error { return second.Close(false) }); err != nil {
		t.Error(err)
	}
}
