// Package client is the user's host of dynamic TCP (Fig 20, 21): it brings together what the programs let pass (kernel), what is believed
// (movement) and why (servicekey). One loop owns the follower; the kernel's table is the truth of where connections are.
//
// A connection is followed from its first message on, as the table has it: most never move, and nothing is lost by a restart.
package client
