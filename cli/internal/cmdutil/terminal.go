package cmdutil

import (
	"os"

	"golang.org/x/term"
)

// Terminal reports whether Out is a terminal, and its width in columns.
func (f *Factory) Terminal() (columns int, ok bool) {
	file, ok := f.Out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 0, false
	}
	columns, _, err := term.GetSize(int(file.Fd()))
	return columns, err == nil
}
