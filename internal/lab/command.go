package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Command prepares a command inside a node. A name without a slash is looked for beside the manycast binary first.
func (l *Lab) Command(ctx context.Context, node string, argv ...string) *exec.Cmd {
	ns, err := l.Namespace(node)
	if err != nil {
		return &exec.Cmd{Err: err}
	}
	cmd := ns.Command(ctx, append([]string{l.program(argv[0])}, argv[1:]...)...)
	cmd.Dir = l.Dir(node)
	env, err := l.environment(node)
	if err != nil {
		return &exec.Cmd{Err: err}
	}
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// environment is the topology's, rendered for a node, and a PATH that begins with the daemons.
func (l *Lab) environment(node string) ([]string, error) {
	env := []string{"MANYCAST_LAB=" + l.name, "PATH=" + l.Bin() + ":" + os.Getenv("PATH")}
	for name, value := range l.topology.Env {
		text, err := render("env", value, l.data(node))
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", name, err)
		}
		env = append(env, name+"="+text)
	}
	return env, nil
}

func (l *Lab) program(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	if path := filepath.Join(l.Bin(), name); isFile(path) {
		return path
	}
	return name
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
