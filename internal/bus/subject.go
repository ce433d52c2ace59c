package bus

import "strings"

// Of is the subject of one daemon, by its name: a dot would begin another word.
func Of(subject, name string) string { return subject + "." + strings.ReplaceAll(name, ".", "-") }
