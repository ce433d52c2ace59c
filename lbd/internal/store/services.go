package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/wholefile"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// WatchServices sends the services in the bucket, all of them in order of names, first when all are known, then at each
// change, until ctx is done. A service that cannot be used, by itself or beside the others, is logged and left out. One that
// vanishes without having been deleted, as when the bus lost its data, stays until the daemon's next start. The last
// ones sent are kept in file and sent at the start, so that a daemon can start while the bus is away; file "": not so.
func WatchServices(ctx context.Context, b Bucket, file string, log *slog.Logger) <-chan []service.Service {
	out := make(chan []service.Service)
	go func() {
		defer close(out)
		if kept := readServices(file, log); len(kept) > 0 && !sendServices(ctx, out, kept) {
			return
		}
		all, synced := map[string]service.Service{}, false
		for e := range b.Watch(ctx) {
			switch {
			case e.Synced:
				synced = true
			case e.Deleted && e.Revision == 0:
				if _, ok := all[e.Key]; ok {
					log.Error("the bus does not know a service any more that nobody deleted, it goes on here; has the bus lost its data? "+
						"apply the service again, and delete it if it is to end", "service", e.Key)
				}
			case e.Deleted:
				delete(all, e.Key)
			default:
				s, err := decodeService(e)
				if err != nil {
					log.Warn("service on the bus is refused", "service", e.Key, "err", err)
					delete(all, e.Key)
				} else {
					all[e.Key] = s
				}
			}
			if !synced {
				continue
			}
			services := compatible(all, log)
			keepServices(file, services, log)
			if !sendServices(ctx, out, services) {
				return
			}
		}
	}()
	return out
}

func sendServices(ctx context.Context, out chan<- []service.Service, services []service.Service) bool {
	select {
	case out <- services:
		return true
	case <-ctx.Done():
		return false
	}
}

func readServices(file string, log *slog.Logger) []service.Service {
	if file == "" {
		return nil
	}
	services, err := service.Load(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("services of the last run count as none", "err", err)
	}
	return services
}

func keepServices(file string, services []service.Service, log *slog.Logger) {
	if file == "" {
		return
	}
	data, err := service.Marshal(services...)
	if err == nil {
		err = wholefile.Write(file, data)
	}
	if err != nil {
		log.Warn("services not kept: a restart without a bus would not know them", "err", err)
	}
}

func decodeService(e bus.Entry) (service.Service, error) {
	var p servicev1.Service
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		return service.Service{}, err
	}
	s, err := service.FromProto(&p)
	if err == nil && s.Name != e.Key {
		err = fmt.Errorf("it says that its name is %q", s.Name)
	}
	return s, err
}

// compatible returns the services that can be together; of two that cannot, the first in order of names.
func compatible(all map[string]service.Service, log *slog.Logger) []service.Service {
	var good []service.Service
	for _, name := range slices.Sorted(maps.Keys(all)) {
		with := append(slices.Clone(good), all[name])
		if err := service.ValidateAll(with); err != nil {
			log.Warn("service on the bus is left out", "service", name, "err", err)
			continue
		}
		good = with
	}
	return good
}

// Static sends services once, as a file has them.
func Static(services []service.Service) <-chan []service.Service {
	out := make(chan []service.Service, 1)
	out <- services
	return out
}
