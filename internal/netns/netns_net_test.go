package netns

import (
	"os"
	"os/exec"
	"testing"
)

// On a machine that has had no network namespace yet, `ip netns` mounts the directory when it makes its first one. Those made before can be
// removed all the same.
func TestNetBesideTheFirstOfIP(t *testing.T) {
	const inside = "MANYCAST_TEST_NETNS"
	if os.Getenv(inside) == "" {
		c := exec.Command("unshare", "--mount", "--propagation", "private", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.count", "1", "-test.v")
		c.Env = append(os.Environ(), inside+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for exec.Command("umount", "--lazy", dir).Run() == nil { // as if it were none
	}
	run("mount", "-t", "tmpfs", "tmpfs", "/run")
	n, err := Create("ours")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	run("ip", "netns", "add", "another")
	run("ip", "netns", "delete", "another")
	if err := Delete("ours"); err != nil {
		t.Error(err)
	}
	if left, err := List(""); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
