// Package dataplane is what lbd does to packets: the director turns a service's virtual IP (VIP) into its multicast group, the
// agent turns the group back into the VIP and drops every packet whose user is not its own (Fig 7C, 9). Both are desired-state
// interfaces: Set takes all services, the kernel is made to match, and the state outlives the process that set it.
package dataplane
