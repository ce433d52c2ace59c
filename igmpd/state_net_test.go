package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// Whoever waits for READY=1 gets an answer at the first try, also after a kill that left a socket behind.
func TestNetReadyMeansThatItAnswers(t *testing.T) {
	r := newRig(t)
	const metrics = "10.1.0.1:9501"
	r.configure("r1", "", r1Interfaces, "[metrics]\nlisten = \""+metrics+"\"\n")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(r.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	for range 8 {
		p := r.igmpdWith(r.r1, []string{"NOTIFY_SOCKET=" + filepath.Join(r.dir, "notify")}, "--config", r.configs["r1"])
		if heard, err := awaitReady(notify); err != nil {
			t.Fatalf("heard %q, %v\n%s", heard, err, p.Output())
		}
		if r.status("r1") == nil {
			t.Fatal("ready, but no status")
		}
		err := r.r1.Do(func() error {
			c, err := net.Dial("tcp", metrics)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err != nil {
			t.Fatalf("ready, but no metrics: %v", err)
		}
		p.Signal(unix.SIGKILL)
		p.Wait()
	}
}

// awaitReady reads what a service manager would until it is told that the daemon is ready.
func awaitReady(notify *net.UnixConn) (heard []string, err error) {
	if err := notify.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	buf := make([]byte, 256)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return heard, err
		}
		heard = append(heard, string(buf[:n]))
		if slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
			return heard, nil
		}
	}
}

// While the disk is full the last snapshot stays, the log says so once, and joins are admitted and forwarded as ever; a
// restart begins with that snapshot.
func TestNetSnapshotOnAFullDisk(t *testing.T) {
	r := newRig(t)
	r.configure("r1", "", r1Interfaces, "")
	r.configure("r2", "", r2Interfaces, "")
	disk := filepath.Join(r.dir, "r2")
	snapshot := func() string { data, _ := os.ReadFile(filepath.Join(disk, "snapshot.json")); return string(data) }
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=32k"); err != nil {
		t.Fatalf("mount (as root?): %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	r.start(r.r1, "r1")
	first := r.start(r.r2, "r2")
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
	testnet.Eventually(t, 5*time.Second, func() bool { return strings.Contains(snapshot(), "10.3.1.11") }, "snapshot with s1")

	fill := filepath.Join(disk, "fill")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is larger than it should be")
	}
	r.send(r.s2, proper, r.sign(r.newJoin(server2, 1, oddUsers)))
	testnet.Eventually(t, 5*time.Second, func() bool {
		return output(first, "snapshot not written") && output(first, "no space left on device")
	}, "the log names the full disk")
	r.joined("r1", 2)
	r.gets(r.atS1, evenUser)
	r.gets(r.atS2, oddUser)
	if old := snapshot(); !strings.Contains(old, "10.3.1.11") || strings.Contains(old, "10.3.2.11") {
		t.Fatalf("the last snapshot became %q", old)
	}
	if left, _ := filepath.Glob(filepath.Join(disk, ".snapshot-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if n := strings.Count(first.Output(), "snapshot not written"); n != 1 {
		t.Errorf("%d lines about the disk", n)
	}

	first.Signal(unix.SIGKILL)
	first.Wait()
	second := r.start(r.r2, "r2")
	if st := r.status("r2"); len(st.Joins) != 1 || st.Joins[0].Requester != "10.3.1.11" {
		t.Fatalf("after a restart on the full disk: %v", st.Joins)
	}
	r.gets(r.atS1, evenUser)
	testnet.Eventually(t, 10*time.Second, func() bool { return output(second, "snapshot not written") }, "the disk is full still")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	r.send(r.s2, proper, r.sign(r.newJoin(server2, 2, oddUsers)))
	testnet.Eventually(t, 10*time.Second, func() bool {
		return strings.Contains(snapshot(), "10.3.2.11") && output(second, "snapshot written again")
	}, "snapshots are written again")
	r.gets(r.atS2, oddUser)
}
