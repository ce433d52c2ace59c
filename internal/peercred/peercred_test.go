package peercred

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestPeers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := Listener(path); err != nil || pid != os.Getpid() {
		t.Errorf("process %d listens, %v", pid, err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if cred, err := Of(c.(*net.UnixConn)); err != nil || int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Getuid() {
		t.Errorf("%+v has connected, %v", cred, err)
	}
	c.Close()
	if _, err := Of(c.(*net.UnixConn)); err == nil {
		t.Error("somebody is at the end of a closed socket")
	}
	l.Close()
	if _, err := Listener(path); err == nil {
		t.Error("somebody listens at a socket that is gone")
	}
}
