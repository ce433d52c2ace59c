// Package allocv1 is the contract of allocations on the bus.
package allocv1

//go:generate sh -c "cd ../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=module=github.com/manycast/manycast proto/alloc/v1/alloc.proto"
