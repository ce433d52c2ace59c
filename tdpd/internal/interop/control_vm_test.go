package interop

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestVMControl: three in a line of which the last one starts later. Of an address of the last one's, the one in the middle tells the
// first one at once (independent control), or when it has the last one's label (ordered).
func TestVMControl(t *testing.T) {
	for name, x := range map[string]struct{ frr, ordered bool }{
		"ours in the middle, independent": {false, false},
		"ours in the middle, ordered":     {false, true},
		"FRR in the middle, independent":  {true, false},
		"FRR in the middle, ordered":      {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, 3, 2, 1)
			if x.frr {
				frrInTheMiddle(l, x.ordered)
			} else {
				oursInTheMiddle(l, x.ordered)
			}
		})
	}
}

func oursInTheMiddle(l *line, ordered bool) {
	first := l.frr(0, frrConfig{is4: true})
	middle := l.tdpd(1, func(r *role) {
		if ordered {
			r.Config.Labels.Control = "ordered"
		}
	})
	operational(l, middle, first)
	l.eventually(func() bool { _, label := first.bindings(1, l.host4(1)); return label == "imp-null" }, "our own address in FRR")
	l.eventually(func() bool { _, label := first.bindings(1, l.host4(2)); return label != "" || ordered }, "what nobody has bound yet")
	if _, label := first.bindings(1, l.host4(2)); ordered && label != "" {
		l.t.Errorf("label %s before the last router has bound one", label)
	}
	last := l.frr(2, frrConfig{is4: true})
	operational(l, middle, last)
	l.eventually(func() bool {
		_, label := first.bindings(1, l.host4(2))
		return label != "" && label == middle.local(l.host4(2))
	}, "our label in FRR")
	if !ordered {
		return
	}
	last.ldpd.Signal(unix.SIGTERM)
	l.eventually(func() bool { _, label := first.bindings(1, l.host4(2)); return label == "" }, "withdrawn after the last one's end")
}

func frrInTheMiddle(l *line, ordered bool) {
	global := ""
	if ordered {
		global = " ordered-control\n"
	}
	first, middle := l.tdpd(0), l.frr(1, frrConfig{is4: true, global: global})
	operational(l, first, middle)
	l.eventually(func() bool { return first.remote(1, l.host4(1)) == "3" }, "FRR's own address here")
	l.eventually(func() bool { return first.remote(1, l.host4(2)) != "" || ordered }, "what nobody has bound yet")
	if label := first.remote(1, l.host4(2)); ordered && label != "" {
		l.t.Errorf("label %s before the last router has bound one", label)
	}
	last := l.tdpd(2)
	operational(l, last, middle)
	l.eventually(func() bool {
		label, remote := middle.bindings(2, l.host4(2))
		return remote == "imp-null" && label != "" && first.remote(1, l.host4(2)) == label && l.labelled(0, l.host4(2)) == label
	}, "FRR's label here, and on our packets")
}
