// Package steer finds the owner of a user: claims of owners are compiled to a plan, the plan is looked up by its source
// address, in Go and in BPF alike (bpf/steer.h), always with the same answer.
package steer

import (
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// Owner is a small number that stands for a member of a group on this machine; 0 is nobody.
type Owner uint32

// Claim says which users an owner takes. Where claims overlap, the higher rank wins, and within a rank the higher epoch.
type Claim struct {
	Owner Owner
	Rank  int
	Epoch epoch.Epoch
	Set   portion.Set
}
