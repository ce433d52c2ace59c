// Package controlv1 is what members of a control channel say to each other.
package controlv1

//go:generate sh -c "cd ../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=module=github.com/manycast/manycast proto/control/v1/control.proto proto/control/v1/members.proto"
