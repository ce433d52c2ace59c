package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	dnsZone  = "bench.example."
	dnsNames = 1000
	dnsTurn  = 1500 * time.Millisecond
	dnsTurns = 3
)

func dnsName(i int) string { return fmt.Sprintf("n%d.%s", i, dnsZone) }

// zoneText is a zone with an address for each name.
func zoneText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "@ 3600 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 3600 IN NS ns1\nns1 3600 IN A 127.0.0.1\n")
	for i := range dnsNames {
		fmt.Fprintf(&b, "n%d 3600 IN A 239.1.%d.%d\n", i, i/250, i%250)
	}
	return b.String()
}

// servePlain is the least that miekg/dns needs to answer from a map: what dnsd is compared with.
func servePlain(ctx context.Context, address string) error {
	records := map[dns.Question][]dns.RR{}
	zone := dns.NewZoneParser(strings.NewReader(zoneText()), dnsZone, "")
	for rr, ok := zone.Next(); ok; rr, ok = zone.Next() {
		h := rr.Header()
		q := dns.Question{Name: h.Name, Qtype: h.Rrtype, Qclass: h.Class}
		records[q] = append(records[q], rr)
	}
	if err := zone.Err(); err != nil {
		return err
	}
	server := &dns.Server{Addr: address, Net: "udp", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Authoritative, m.Answer = true, records[r.Question[0]]
		w.WriteMsg(m) //nolint:errcheck // as dnsd, it can do nothing about it
	})}
	defer context.AfterFunc(ctx, func() { server.Shutdown() })() //nolint:errcheck // it ends anyway
	return server.ListenAndServe()
}

// nameserver is a server under load.
type nameserver struct {
	cmd     *exec.Cmd
	address string
	answers int
	cpu     time.Duration
}

// dnsResults sets dnsd beside the plain server, in turns of one run: the same zone, the same questions.
func dnsResults(ctx context.Context, bin string) ([]result, error) {
	dir, err := os.MkdirTemp("", "bench-dns")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ours, plain := &nameserver{address: "127.0.0.1:5398"}, &nameserver{address: "127.0.0.1:5399"}
	config := fmt.Sprintf("listen = [%q]\ndata_dir = %q\n[log]\nlevel = \"warn\"\n[[zone]]\nname = %q\nns = [%q]\nmbox = %q\nfile = %q\n",
		ours.address, filepath.Join(dir, "data"), dnsZone, "ns1."+dnsZone, "hostmaster."+dnsZone, filepath.Join(dir, "zone"))
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "zone"), []byte(zoneText()), 0o600), os.WriteFile(filepath.Join(dir, "dnsd.toml"), []byte(config), 0o600)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ours.cmd = exec.CommandContext(ctx, filepath.Join(bin, "dnsd"), "-config", filepath.Join(dir, "dnsd.toml"))
	plain.cmd = exec.CommandContext(ctx, self, "-plain-dns", plain.address)
	for _, s := range []*nameserver{ours, plain} {
		if err := s.start(); err != nil {
			return nil, err
		}
		defer s.stop()
	}
	for range dnsTurns {
		for _, s := range []*nameserver{ours, plain} {
			if err := s.load(dnsTurn); err != nil {
				return nil, err
			}
		}
	}
	return []result{compare(ours.rate(), "answers/CPU-s", "plain miekg/dns map", plain.rate()).named("authoritative answers by dnsd")}, nil
}

func (s *nameserver) rate() float64 { return float64(s.answers) / s.cpu.Seconds() }

// start waits until the server answers as it should.
func (s *nameserver) start() error {
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("%w: run make build first", err)
	}
	question := new(dns.Msg).SetQuestion(dnsName(7), dns.TypeA)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		m, err := dns.Exchange(question, s.address)
		if err == nil && m.Authoritative && len(m.Answer) == 1 && len(m.Extra) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("%s does not answer: %v, %w", s.cmd.Path, m, err)
		}
	}
}

func (s *nameserver) stop() {
	s.cmd.Process.Signal(unix.SIGTERM) //nolint:errcheck // it may have ended
	s.cmd.Wait()                       //nolint:errcheck // how it ends is another test's
}

// load asks for random names over a window of questions and adds the answers and the server's CPU time up.
func (s *nameserver) load(within time.Duration) error {
	c, err := net.Dial("udp", s.address)
	if err != nil {
		return err
	}
	defer c.Close()
	before, err := cpuTime(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	answers, err := ask(c, within)
	if err != nil {
		return err
	}
	after, err := cpuTime(s.cmd.Process.Pid)
	s.answers, s.cpu = s.answers+answers, s.cpu+after-before
	return err
}

// ask keeps 64 questions under way. One that is lost is asked anew when nothing else comes.
func ask(c net.Conn, within time.Duration) (answers int, err error) {
	const window = 64
	var questions [dnsNames][]byte
	for i := range questions {
		if questions[i], err = new(dns.Msg).SetQuestion(dnsName(i), dns.TypeA).Pack(); err != nil {
			return 0, err
		}
	}
	next, open := 0, 0
	buf := make([]byte, dns.MinMsgSize)
	for end := time.Now().Add(within); time.Now().Before(end); {
		for ; open < window; open++ {
			next = (next*21 + 7) % dnsNames // visits them in no order that a cache would like
			if _, err := c.Write(questions[next]); err != nil {
				return answers, err
			}
		}
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return answers, err
		}
		n, err := c.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			open = 0
		case err != nil:
			return answers, err
		case n < 12 || buf[3]&0xf != dns.RcodeSuccess || buf[7] != 1:
			return answers, fmt.Errorf("answer %x", buf[:n])
		default:
			answers, open = answers+1, open-1
		}
	}
	return answers, nil
}

// cpuTime is what a process has used of the processors, in user and kernel mode.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	var user, system int64
	_, rest, _ := strings.Cut(string(data), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, err
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all of Linux
	return time.Duration(user+system) * tick, nil
}
