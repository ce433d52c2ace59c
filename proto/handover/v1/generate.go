// Package handoverv1 is what servers say to each other when live connections are handed over.
package handoverv1

//go:generate sh -c "cd ../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=module=github.com/manycast/manycast proto/handover/v1/channel.proto proto/handover/v1/link.proto proto/handover/v1/flows.proto proto/handover/v1/pins.proto"
