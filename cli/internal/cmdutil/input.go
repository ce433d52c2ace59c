package cmdutil

import (
	"fmt"
	"io"
	"os"
)

// ReadInput reads a file that the user named, of at most limit bytes; "-" is standard input. name is what errors call it.
func (f *Factory) ReadInput(file string, limit int64) (data []byte, name string, err error) {
	in, name := f.In, "standard input"
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, file, err
		}
		defer opened.Close()
		in, name = opened, file
	}
	data, err = io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, name, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, name, fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return data, name, nil
}
