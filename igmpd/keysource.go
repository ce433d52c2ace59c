package main

import (
	"crypto/tls"
	"time"

	"github.com/manycast/manycast/igmpd/internal/config"
	"github.com/manycast/manycast/igmpd/internal/keys"
	"github.com/manycast/manycast/internal/keyfile"
)

// keySource brings pinned files and DNS servers together; pinned records win.
func keySource(cfg config.Keys) (keys.Source, error) {
	var sources keys.Sources
	if len(cfg.Pinned) > 0 {
		pinned := keys.NewPinned(cfg.Pinned, time.Now)
		if err := pinned.Check(); err != nil {
			return nil, err
		}
		sources = append(sources, pinned)
	}
	if len(cfg.Servers) > 0 {
		d := keys.DNSConfig{Servers: cfg.Servers, TSIGName: cfg.TSIGName}
		if cfg.TLS {
			d.TLS = &tls.Config{ServerName: cfg.TLSServerName, MinVersion: tls.VersionTLS12}
		} else {
			secret, err := keyfile.ReadTSIG(cfg.TSIGSecretFile)
			if err != nil {
				return nil, err
			}
			d.TSIGSecret = secret
		}
		sources = append(sources, keys.NewDNS(d))
	}
	return sources, nil
}
