package bus

import (
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

// Buckets of the suite, see the table of owners in ARCHITECTURE.md.
const (
	BucketServices    = "services"    // service name -> service.v1.Service
	BucketServers     = "servers"     // service.server -> alloc.v1.Registration, renewed
	BucketOperator    = "operator"    // service.server -> what the operator wants of it: weight, drain
	BucketAllocations = "allocations" // service name -> alloc.v1.Allocation
	BucketLeases      = "leases"      // who leads
	BucketMoves       = "moves"       // service name -> its last moves
	BucketMembers     = "members"     // member name -> its public key
	BucketKeys        = "keys"        // member.group -> sealed group private key
	BucketPins        = "pins"        // service.server -> handover.v1.Pins, renewed
)

// A role is what one kind of client may do. Publishing to a bucket's subject writes it.
type role struct {
	name      string
	all       bool
	write     []string // buckets
	read      []string // buckets
	publish   []string // subjects
	subscribe []string // subjects
}

// Buckets are the names of all buckets.
func Buckets() []string {
	return []string{
		BucketServices, BucketServers, BucketOperator, BucketAllocations, BucketLeases, BucketMoves, BucketMembers, BucketKeys, BucketPins,
	}
}

// roles are fixed: one credential file each. Operators (the CLI) are admin.
func roles() []role {
	return []role{
		{name: "admin", all: true},
		{
			name: "director",
			read: []string{
				BucketServices, BucketServers, BucketOperator, BucketAllocations, BucketLeases, BucketMoves, BucketKeys, BucketMembers, BucketPins,
			},
			write:   []string{BucketAllocations, BucketLeases, BucketMoves},
			publish: []string{"lbd.>", "tdpd.bind.>"}, subscribe: []string{"lbd.>"},
		},
		{
			name: "agent", read: []string{BucketServices, BucketServers, BucketOperator, BucketAllocations, BucketKeys, BucketMembers, BucketPins},
			write:   []string{BucketServers, BucketPins},
			publish: []string{"lbd.>"}, subscribe: []string{"lbd.>"},
		},
		{
			name: "leader", // an agent that may lead
			read: []string{
				BucketServices, BucketServers, BucketOperator, BucketAllocations, BucketLeases, BucketMoves, BucketKeys, BucketMembers, BucketPins,
			},
			write:   []string{BucketServers, BucketAllocations, BucketLeases, BucketMoves, BucketPins},
			publish: []string{"lbd.>"}, subscribe: []string{"lbd.>"},
		},
		{name: "igmpd", read: []string{BucketKeys, BucketMembers}, publish: []string{"igmpd.>"}, subscribe: []string{"igmpd.>"}},
		{
			name: "tdpd", read: []string{BucketServers, BucketKeys}, publish: []string{"tdpd.events.>"},
			subscribe: []string{"tdpd.ask", "tdpd.ask.>", "tdpd.bind.>", "tdpd.control.>"},
		},
		{name: "dnsd", publish: []string{"dnsd.>"}, subscribe: []string{"dnsd.>"}},
	}
}

// inbox is the prefix of a role's reply subjects: no role can listen to another's answers.
func inbox(role string) string { return "_INBOX_" + role }

// permissions are the NATS subjects behind a role.
func (r role) permissions() *server.Permissions {
	if r.all {
		return nil
	}
	pub := slices.Clone(r.publish)
	if len(r.read) > 0 {
		pub = append(pub, "$JS.FC.>")
	}
	for _, b := range r.read {
		stream := "KV_" + b
		pub = append(pub, "$JS.API.STREAM.INFO."+stream, "$JS.API.CONSUMER.CREATE."+stream, "$JS.API.CONSUMER.CREATE."+stream+".>",
			"$JS.API.CONSUMER.DELETE."+stream+".>", "$JS.API.CONSUMER.INFO."+stream+".>", "$JS.API.CONSUMER.MSG.NEXT."+stream+".>",
			"$JS.API.DIRECT.GET."+stream, "$JS.API.DIRECT.GET."+stream+".>", "$JS.API.STREAM.MSG.GET."+stream, "$JS.ACK."+stream+".>")
	}
	for _, b := range r.write {
		pub = append(pub, "$KV."+b+".>")
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: pub},
		Subscribe: &server.SubjectPermission{Allow: slices.Concat(r.subscribe, []string{inbox(r.name) + ".>"})},
		Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: server.DEFAULT_ALLOW_RESPONSE_EXPIRATION},
	}
}
