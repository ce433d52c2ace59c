// Package gobgp drives a GoBGP speaker through its gRPC API: a process of our own (package server), or somebody else's gobgpd of version 3.
package gobgp
