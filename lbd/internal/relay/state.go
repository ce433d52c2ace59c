package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// stateVersion is the first byte of what travels.
const stateVersion = 1

// encodeState is what the relay that a connection goes to has to know: how many requests there were.
func encodeState(requests uint64) []byte {
	return binary.AppendUvarint([]byte{stateVersion}, requests)
}

func decodeState(b []byte) (requests uint64, err error) {
	if len(b) == 0 || b[0] != stateVersion {
		return 0, fmt.Errorf("state of %d bytes is none of this version's relay", len(b))
	}
	requests, n := binary.Uvarint(b[1:])
	if n <= 0 || n != len(b)-1 {
		return 0, errors.New("state has no number of requests, or more than that")
	}
	return requests, nil
}

// checkState refuses what this relay cannot read: the connection stays where it is.
func checkState(b []byte) error {
	_, err := decodeState(b)
	return err
}
