package bgp

import (
	"fmt"
	"strconv"
	"strings"
)

// Community is a community (RFC 1997): an AS in its upper 16 bits and that AS's word in the lower ones.
type Community uint32

// Well-known communities.
const (
	GracefulShutdown Community = 0xffff_0000 // RFC 8326: prefer any other path, this one is about to go
	LLGRStale        Community = 0xffff_0006 // RFC 9494: from before the neighbor's restart
	NoLLGR           Community = 0xffff_0007 // RFC 9494: not to be kept so
	Blackhole        Community = 0xffff_029a // RFC 7999
	NoExport         Community = 0xffff_ff01 // RFC 1997
	NoAdvertise      Community = 0xffff_ff02 // RFC 1997
)

var communityNames = map[Community]string{
	GracefulShutdown: "graceful-shutdown", LLGRStale: "llgr-stale", NoLLGR: "no-llgr", Blackhole: "blackhole", NoExport: "no-export",
	NoAdvertise: "no-advertise",
}

// String is a well-known name, or 65001:100.
func (c Community) String() string {
	if name, ok := communityNames[c]; ok {
		return name
	}
	return fmt.Sprintf("%d:%d", uint32(c)>>16, uint32(c)&0xffff)
}

// ParseCommunity reads what String writes.
func ParseCommunity(text string) (Community, error) {
	for c, name := range communityNames {
		if name == text {
			return c, nil
		}
	}
	upper, lower, ok := strings.Cut(text, ":")
	if ok {
		u, errU := strconv.ParseUint(upper, 10, 16)
		l, errL := strconv.ParseUint(lower, 10, 16)
		if errU == nil && errL == nil {
			return Community(u<<16 | l), nil
		}
	}
	return 0, fmt.Errorf("community %q: want 65001:100, or a name such as graceful-shutdown", text)
}

// MarshalText implements encoding.TextMarshaler.
func (c Community) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Community) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCommunity(string(text))
	return err
}
