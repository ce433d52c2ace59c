package main

import (
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/groupkeys"
	"github.com/manycast/manycast/tdpd/internal/service"
)

// openControl has the service hear the control channel, and returns it with its tasks; nil where there is none. The conn may be nil: keys
// come from the directory alone then.
func openControl(o *service.Options, conn *bus.Conn) (*channel.Channel, []daemon.Task, error) {
	cfg := o.Config.Control
	if !cfg.Enabled() {
		return nil, nil, nil
	}
	known := channel.KnownIn(o.Config.StateDir, o.Log)
	c, err := channel.Listen(cfg.ListenConfig, o.Config.Name, known.Load(), o.Log)
	if err != nil {
		return nil, nil, err
	}
	o.Control = c
	tasks := []daemon.Task{c, known.Keep(c.Known)}
	var sealed groupkeys.Watcher
	if conn != nil {
		sealed = conn.Bucket(bus.BucketConfig{Name: bus.BucketKeys})
		tasks = append(tasks, c.Answer(conn, "tdpd"))
	}
	return c, append(tasks, groupkeys.New(cfg.Keys, cfg.Member, sealed, c.SetKeys, o.Log)), nil
}
