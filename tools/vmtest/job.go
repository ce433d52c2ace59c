package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// jobFile is the name of the job in a run's directory.
const jobFile = "job.json"

// job is what the machine is to do.
type job struct {
	Command []string `json:"command"` // the program by its path
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`
	Early   []string `json:"early"`   // modules to load before the file system is there
	Modules []string `json:"modules"` // modules to load then
	Lib     string   `json:"lib"`     // the kernel's directory of modules, empty: this machine's own kernel
	Write   []string `json:"write"`   // directories whose changes are kept
}

// newJob finds the program as a shell would: relative to the working directory, or in the path.
func newJob(o options) (j job, err error) {
	program, err := exec.LookPath(o.command[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return j, err
	}
	if program, err = filepath.Abs(program); err != nil {
		return j, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return j, err
	}
	modules := append([]string{"ipv6", "veth", "mpls_router", "mpls_iptunnel", "mpls_gso"}, o.modules...)
	return job{Command: append([]string{program}, o.command[1:]...), Env: os.Environ(), Dir: dir, Modules: modules, Write: o.write}, nil
}

func (j job) save(path string) error {
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func loadJob(path string) (j job, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return j, err
	}
	return j, json.Unmarshal(data, &j)
}

// end is how the command ended.
type end struct {
	Status int            `json:"status"`
	Signal syscall.Signal `json:"signal,omitempty"` // it was killed by
	Error  string         `json:"error,omitempty"`  // why it was not run
}

// A frame on the channel from the machine: kind, length in 4 bytes, payload.
type kind byte

const (
	kindStdout kind = 'o'
	kindStderr kind = 'e'
	kindEnd    kind = 'x' // JSON of end; the last one
)

const (
	headerSize = 5
	maxPayload = 64 << 10
)

// frames writes frames, one at a time.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) send(k kind, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	frame := binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(payload)))
	_, err := f.w.Write(append(frame, payload...))
	return err
}

// stream is the writer of one kind.
type stream struct {
	frames *frames
	kind   kind
}

func (s stream) Write(p []byte) (int, error) {
	for i := 0; i < len(p); i += maxPayload {
		if err := s.frames.send(s.kind, p[i:min(len(p), i+maxPayload)]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// readFrames passes output on until the command's end, or io.EOF.
func readFrames(r io.Reader, stdout, stderr io.Writer) (e end, err error) {
	var header [headerSize]byte
	buf := make([]byte, maxPayload)
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return e, err
		}
		n := binary.BigEndian.Uint32(header[1:])
		if n > maxPayload {
			return e, fmt.Errorf("the machine sent garbage: % x", header)
		}
		payload := buf[:n]
		if _, err := io.ReadFull(r, payload); err != nil {
			return e, err
		}
		switch kind(header[0]) {
		case kindStdout:
			_, err = stdout.Write(payload)
		case kindStderr:
			_, err = stderr.Write(payload)
		case kindEnd:
			return e, json.Unmarshal(payload, &e)
		default:
			err = fmt.Errorf("the machine sent garbage: % x", header)
		}
		if err != nil {
			return e, err
		}
	}
}
