package control

import "testing"

func TestMailboxKeepsTheNewestOfEachMember(t *testing.T) {
	b := NewMailbox(2)
	for _, h := range []Health{Available, Silent, Unwell} {
		b.Put(Changed{Member{Name: "s2", Health: h}})
	}
	b.Put(Changed{Member{Name: "s1", Health: Available}})
	for kind := range Kind(3) {
		b.Put(Received{Kind: kind})
	}
	select {
	case <-b.Ready():
	default:
		t.Fatal("nothing to take")
	}
	members, messages := b.Take()
	if len(members) != 2 || members[0].Name != "s1" || members[1].Health != Unwell {
		t.Errorf("took %+v, want s1 and the newest of s2", members)
	}
	if len(messages) != 2 || messages[0].Kind != 0 || messages[1].Kind != 1 || b.Lost() != 1 {
		t.Errorf("took %+v and lost %d, want the first two and one lost", messages, b.Lost())
	}
	if members, messages = b.Take(); len(members)+len(messages) != 0 {
		t.Errorf("took %v and %v again", members, messages)
	}
}
