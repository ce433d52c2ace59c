package tdpdv1

//go:generate sh -c "cd ../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=paths=source_relative proto/tdpd/v1/tdpd.proto proto/tdpd/v1/binding.proto proto/tdpd/v1/bgp.proto"
