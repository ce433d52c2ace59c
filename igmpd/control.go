package main

import (
	"github.com/manycast/manycast/igmpd/internal/service"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/groupkeys"
)

// openControl adds the control channel to the service's surroundings and returns its tasks; none where there is no channel. The
// conn may be nil: keys come from the directory alone then.
func openControl(o *service.Options, conn *bus.Conn) ([]daemon.Task, error) {
	cfg := o.Config.Control
	if !cfg.Enabled() {
		return nil, nil
	}
	c, err := channel.Open(cfg.Config, o.Config.Name, control.Router, service.KnownMembers(o.Config.StateDir), o.Log)
	if err != nil {
		return nil, err
	}
	o.Control = c
	tasks := []daemon.Task{c}
	var sealed groupkeys.Watcher
	if conn != nil {
		sealed = conn.Bucket(bus.BucketConfig{Name: bus.BucketKeys})
		tasks = append(tasks, c.Answer(conn, "igmpd"))
	}
	return append(tasks, groupkeys.New(cfg.Keys, cfg.Member, sealed, c.SetKeys, o.Log)), nil
}
