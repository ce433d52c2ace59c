package cmdutil

import "fmt"

// Exit is the status of a command that another one was run for: nothing is to be said, the process ends with it.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("the command has ended with status %d", int(e)) }
