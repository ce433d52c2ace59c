// Package servicev1 is the contract of services on the bus.
package servicev1

//go:generate sh -c "cd ../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=module=github.com/manycast/manycast proto/service/v1/service.proto"
