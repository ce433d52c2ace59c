package newest

import (
	"sync"
	"testing"
)

func TestTheNewestIsTaken(t *testing.T) {
	c := New[int]()
	for i := range 100 {
		c.Set(i)
	}
	if got := <-c; got != 99 {
		t.Errorf("took %d", got)
	}
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() { c.Set(i) })
	}
	work.Wait()
	<-c
	select {
	case got := <-c:
		t.Errorf("took %d, too", got)
	default:
	}
}
