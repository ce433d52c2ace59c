package lab

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestNotifyWaitsForReady(t *testing.T) {
	n, err := listenNotify(filepath.Join(t.TempDir(), "n"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	c, err := net.Dial("unixgram", n.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, m := range []string{"STATUS=soon", "MAINPID=1\nREADY=1\n"} {
		if _, err := c.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := n.wait(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	if err := n.wait(ctx); err == nil {
		t.Error("ready without a word")
	}
}

func TestAliveKnowsOneProcessOnly(t *testing.T) {
	pid := os.Getpid()
	begin, _, err := stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	if !(entry{PID: pid, Start: begin}).alive() {
		t.Error("this process is said to be dead")
	}
	if (entry{PID: pid, Start: begin + 1}).alive() {
		t.Error("another process of the same id is taken for it")
	}
}
