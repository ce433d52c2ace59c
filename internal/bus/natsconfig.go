package bus

import (
	"fmt"
	"strings"
)

// NATSConfig returns the inside of a NATS account for the suite, in the language of nats-server's configuration: JetStream, and one
// user a role with what it may do. The roles' credentials are in dataDir/creds; those that are missing are made.
func NATSConfig(dataDir string) (string, error) {
	var b strings.Builder
	b.WriteString("# What Manycast needs of a NATS cluster: include it in an account of its own, and run `manycast bus init` then.\n")
	b.WriteString("#   accounts { MANYCAST { include \"manycast.conf\" } }\n")
	b.WriteString("jetstream: enabled\nusers: [\n")
	for _, r := range roles() {
		path := CredentialsPath(dataDir, r.name)
		if _, err := ensureCredentials(path, r.name); err != nil {
			return "", err
		}
		public, err := publicKey(path, r.name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  { # %s\n    nkey: %s\n", r.name, public)
		if p := r.permissions(); p != nil {
			fmt.Fprintf(&b, "    permissions: {\n      publish: { allow: [%s\n      ] }\n      subscribe: { allow: [%s\n      ] }\n"+
				"      allow_responses: { max: %d, expires: %q }\n    }\n",
				quoted(p.Publish.Allow), quoted(p.Subscribe.Allow), p.Response.MaxMsgs, p.Response.Expires)
		}
		b.WriteString("  }\n")
	}
	b.WriteString("]\n")
	return b.String(), nil
}

// quoted are subjects, one a line.
func quoted(subjects []string) string {
	var b strings.Builder
	for _, s := range subjects {
		fmt.Fprintf(&b, "\n        %q", s)
	}
	return b.String()
}
