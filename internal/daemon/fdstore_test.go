package daemon

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFDStore(t *testing.T) {
	sock := notifySocket(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	store := NewFDStore()
	if err := store.Put("table-7", w); err != nil {
		t.Fatal(err)
	}
	w.Close()

	buf, oob := make([]byte, 128), make([]byte, 128)
	n, oobn, _, _, err := sock.ReadMsgUnix(buf, oob)
	if err != nil || string(buf[:n]) != "FDSTORE=1\nFDPOLL=0\nFDNAME=table-7" {
		t.Fatalf("told %q, %v", buf[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	kept := os.NewFile(uintptr(fds[0]), "kept")
	defer kept.Close()
	if _, err := kept.WriteString("x"); err != nil { // w's own end is closed
		t.Fatal(err)
	}
	if n, err := r.Read(buf); n != 1 || err != nil {
		t.Fatal(n, err)
	}

	if err := store.Remove("table-7"); err != nil {
		t.Fatal(err)
	}
	if n, err := sock.Read(buf); err != nil || string(buf[:n]) != "FDSTOREREMOVE=1\nFDNAME=table-7" {
		t.Fatalf("told %q, %v", buf[:n], err)
	}
	if err := (FDStore{}).Put("nobody", r); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
}
