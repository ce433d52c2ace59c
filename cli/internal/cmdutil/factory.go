// Package cmdutil is what the commands share: streams, clock, output formats and the way to the bus, all injected.
package cmdutil

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/bus"
)

// Factory carries what a command may use of the world. Tests make their own.
type Factory struct {
	In       io.Reader
	Out, Err io.Writer
	Now      func() time.Time

	Output      string   // table, json or yaml
	URLs        []string // of the bus
	Credentials string   // nkey seed file of the operator's role
	Timeout     time.Duration
}

// NewFactory uses the process' own streams and clock.
func NewFactory() *Factory {
	return &Factory{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Now: time.Now}
}

// DefaultDataDir is where `manycast bus` keeps its data and credentials unless it is told otherwise.
const DefaultDataDir = "/var/lib/manycast/bus"

// Flags adds the flags that all commands have.
func (f *Factory) Flags(cmd *cobra.Command) {
	credentials := os.Getenv("MANYCAST_CREDENTIALS")
	if credentials == "" {
		credentials = bus.CredentialsPath(DefaultDataDir, "admin")
	}
	urls := []string{"nats://127.0.0.1:4222"}
	if env := os.Getenv("MANYCAST_BUS"); env != "" {
		urls = []string{env}
	}
	flags := cmd.PersistentFlags()
	flags.StringVarP(&f.Output, "output", "o", "table", "output format: table, json or yaml")
	flags.StringSliceVar(&f.URLs, "bus", urls, "URLs of the bus (environment: MANYCAST_BUS)")
	flags.StringVar(&f.Credentials, "credentials", credentials, "the operator's credentials (environment: MANYCAST_CREDENTIALS)")
	flags.DurationVar(&f.Timeout, "timeout", 5*time.Second, "how long to wait for the bus")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

// Check refuses values that no command could use.
func (f *Factory) Check() error {
	switch f.Output {
	case "table", "json", "yaml":
		return nil
	}
	return fmt.Errorf("output format %q: want table, json or yaml", f.Output)
}

// Bus connects and waits up to Timeout. The caller closes the connection.
func (f *Factory) Bus(ctx context.Context) (*bus.Conn, error) {
	c, err := bus.Connect(bus.Config{URLs: f.URLs, Credentials: f.Credentials, Name: "manycast", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("%w (or name the operator's with --credentials)", err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	if err := c.WaitConnected(ctx); err != nil {
		c.Close()
		if errors.Is(err, bus.ErrAway) {
			return nil, fmt.Errorf("%w: is `manycast bus` running there, and are %s its credentials?", err, f.Credentials)
		}
		return nil, err
	}
	return c, nil
}
