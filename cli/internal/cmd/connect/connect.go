// Package connect is `manycast connect`: one command whose connections follow their servers.
package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/cgroup2"
	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/connects"
)

type options struct {
	factory *cmdutil.Factory
	config  string
	bpffs   string
	lbd     string
}

// New returns `manycast connect`.
func New(f *cmdutil.Factory) *cobra.Command {
	o := options{factory: f}
	cmd := &cobra.Command{
		Use:   "connect -- COMMAND [ARG]...",
		Short: "Run a command whose connections follow their servers (dynamic TCP)",
		Long: `Run a command whose connections follow their servers (dynamic TCP).

The command gets a control group of its own, which lbd client follows until the command ends; it exits as the command did, and signals
go to the command. When it ends, its connections that have moved do, too, and what it has left running goes on without. It needs root; where the
command is to be somebody else's, let it change: manycast connect -- runuser -u ada -- curl ...`,
		Example: "  manycast connect -- curl -O http://shop.cast.example/film",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args)
		},
	}
	cmd.Flags().StringVar(&o.config, "config", "/etc/manycast/client.toml", "configuration of lbd client; its cgroup, bpffs and socket do not count")
	cmd.Flags().StringVar(&o.bpffs, "bpffs", "/sys/fs/bpf/manycast", "directory on a bpffs, below which lbd client pins what it has")
	cmd.Flags().StringVar(&o.lbd, "lbd", "", "program lbd; without it the one beside manycast, or in PATH")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (o options) run(ctx context.Context, argv []string) (err error) {
	lbd, err := o.program()
	if err != nil {
		return err
	}
	run, err := o.newRun()
	if err != nil {
		return err
	}
	defer func() { err = after(err, run.Remove()) }()
	client, err := startClient(ctx, run, lbd, "client", "--config", o.config, "--connect", run.Dir)
	if err != nil {
		return err
	}
	defer func() { err = after(err, client.stop()) }()
	command := exec.Command(argv[0], argv[1:]...)
	command.Stdin, command.Stdout, command.Stderr = o.factory.In, o.factory.Out, o.factory.Err
	return runIn(run.Made.Group, command)
}

func (o options) newRun() (*connects.Run, error) {
	own, err := cgroup2.Own()
	if err != nil {
		return nil, err
	}
	pins, err := filepath.Abs(o.bpffs)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(clientstatus.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("directory of runs: %w", err)
	}
	pid := strconv.Itoa(os.Getpid())
	return connects.New(clientstatus.RunDir, pid, connects.Made{
		Group: filepath.Join(own, "manycast-"+connects.Prefix+pid), Pins: filepath.Join(pins, connects.Prefix+pid),
	})
}

// after is what there is to say when what was made has been removed.
func after(err, removed error) error {
	if removed == nil {
		return err
	}
	return errors.Join(err, removed)
}

// program is lbd.
func (o options) program() (string, error) {
	if o.lbd != "" {
		return o.lbd, nil
	}
	if self, err := os.Executable(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), "lbd")); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("lbd")
	if err != nil {
		return "", fmt.Errorf("lbd is neither beside manycast nor in PATH: say where with --lbd: %w", err)
	}
	return path, nil
}
