// Package load measures what a server's work is, and says it: to the leader, which moves users by it, to the other servers, and to
// Prometheus. Where all servers of a service have too much to do, it refuses new connections of some users (Shedding), so that
// those that are there are served; where one has, another one answers new connections of some, if these say where they live (Diverting).
//
// Meter, hot, Shedding, Diverting and Parse are pure; Machine and Application read; Task joins them.
package load
