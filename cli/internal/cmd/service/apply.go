package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
)

// maxFile bounds what is read, in bytes.
const maxFile = 16 << 20

type applyOptions struct {
	factory *cmdutil.Factory
	file    string
	dryRun  bool
}

func newApply(f *cmdutil.Factory) *cobra.Command {
	o := applyOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create and change services as a YAML file has them",
		Long: `Create and change services as a YAML file has them, one document a service. All are checked, against each other and
against those that are there, before any is written. Services that are not in the file stay as they are.`,
		Example: "  manycast service apply -f web.yaml\n  manycast service show web -o yaml | sed s/equal/weighted/ | manycast service apply -f -",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVarP(&o.file, "filename", "f", "", "the file; - is standard input")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "check and say what would change, but change nothing")
	_ = cmd.MarkFlagRequired("filename") // the flag is there
	return cmd
}

// write is one service to be written.
type write struct {
	spec     service.Service
	revision uint64
	result   string
	warning  string
}

func (o applyOptions) run(ctx context.Context) error {
	specs, err := o.read()
	if err != nil {
		return err
	}
	s, err := pool.Open(ctx, o.factory)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	writes, err := plan(snap, specs)
	if err != nil {
		return err
	}
	results, failed := []result{}, error(nil)
	for _, w := range writes {
		if w.result != unchanged && !o.dryRun {
			failed = s.Write(ctx, bus.BucketServices, w.spec.Name, service.ToProto(w.spec), w.revision)
			if errors.Is(failed, bus.ErrConflict) {
				failed = fmt.Errorf("service %s: somebody else changed it at the same time: look at it and apply again: %w", w.spec.Name, failed)
			}
			if failed != nil {
				break
			}
		}
		results = append(results, result{w.spec.Name, w.result, w.warning})
	}
	if failed != nil && len(results) == 0 {
		return failed
	}
	return errors.Join(printResults(o.factory, results), failed)
}

func (o applyOptions) read() ([]service.Service, error) {
	data, name, err := o.factory.ReadInput(o.file, maxFile)
	if err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	specs, err := service.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(specs) == 0 {
		return nil, fmt.Errorf("%s: no service in it", name)
	}
	return specs, nil
}

// plan says what has to be written, and checks what there would be then.
func plan(snap *pool.Snapshot, specs []service.Service) ([]write, error) {
	var writes []write
	inFile := map[string]bool{}
	for _, spec := range specs {
		inFile[spec.Name] = true
		w := write{spec: spec, result: created}
		svc, err := snap.Service(spec.Name)
		if err == nil {
			w.revision, w.result = svc.Revision, changed
			if proto.Equal(service.ToProto(svc.Spec), service.ToProto(spec)) {
				w.result = unchanged
			}
		}
		w.warning = warning(spec, svc)
		writes = append(writes, w)
	}
	all := specs
	for _, spec := range snap.Specs() {
		if !inFile[spec.Name] {
			all = append(all, spec)
		}
	}
	return writes, service.ValidateAll(all)
}
