package agent

import (
	"context"
	"time"
)

// verdict is what the health checker says.
type verdict struct {
	healthy bool
	why     error
}

// watchHealth hands the checker's verdicts to the loop, the first when the application can be asked at the VIP and the keys are
// known: no registration says that this server cannot serve only because it has just started.
func (l *Loop) watchHealth(ctx context.Context) {
	for _, known := range []<-chan struct{}{l.ready, l.cfg.KeysRead} {
		if known == nil {
			continue
		}
		select {
		case <-known:
		case <-ctx.Done():
			return
		}
	}
	l.cfg.Health(ctx, func(healthy bool, why error) {
		select {
		case l.verdicts <- verdict{healthy, why}:
		case <-ctx.Done():
		}
	})
}

func (l *Loop) health(v verdict) []Action {
	if v.healthy {
		l.cfg.Log.Info("application is healthy")
	} else {
		l.cfg.Log.Warn("application is unhealthy, leaving the pool", "err", v.why)
	}
	actions := l.core.SetHealthy(time.Now(), v.healthy)
	if l.registrar != nil && l.cfg.Channel == nil {
		l.registrar.setHealthy(v.healthy)
	}
	return actions
}
