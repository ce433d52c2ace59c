package rtnl

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Rule is a rule of policy routing (`ip rule`), by the mark of packets. It is comparable.
type Rule struct {
	Family   uint8 // AF_INET or AF_INET6
	Priority uint32
	Action   uint8 // FR_ACT_...
	Not      bool  // for packets that do not match
	Mark     uint32
	Mask     uint32 // 0: any mark
	Table    uint32 // of FR_ACT_TO_TBL
	Goto     uint32 // priority of the next rule, of FR_ACT_GOTO
	Protocol uint8  // whose it is, as that of routes
}

// What is done to packets of a rule (FR_ACT_...); unix has none of them.
const (
	ActTable = 1
	ActGoto  = 2
	ActNop   = 3
)

const (
	sizeofRule = 12     // struct fib_rule_hdr
	ruleInvert = 1 << 1 // FIB_RULE_INVERT
	fraGoto    = 4      // FRA_GOTO
	fraPrio    = 6      // FRA_PRIORITY
	fraMark    = 10     // FRA_FWMARK
	fraTable   = 15     // FRA_TABLE
	fraMask    = 16     // FRA_FWMASK
	fraProto   = 21     // FRA_PROTOCOL
)

// append appends what follows the netlink header in a request about r.
func (r *Rule) append(b []byte) []byte {
	var flags uint32
	if r.Not {
		flags = ruleInvert
	}
	b = append(b, r.Family, 0, 0, 0, tableByte(r.Table), 0, 0, r.Action)
	b = native.AppendUint32(b, flags)
	b = appendUint32(b, fraPrio, r.Priority)
	if r.Mask != 0 {
		b = appendUint32(b, fraMark, r.Mark)
		b = appendUint32(b, fraMask, r.Mask)
	}
	if r.Action == ActGoto {
		b = appendUint32(b, fraGoto, r.Goto)
	}
	if r.Table != 0 {
		b = appendUint32(b, fraTable, r.Table)
	}
	return appendAttribute(b, fraProto, func(b []byte) []byte { return append(b, r.Protocol) })
}

// tableByte is a table in a header of a byte for it: those beyond are in an attribute.
func tableByte(table uint32) byte {
	if table > 0xff {
		return unix.RT_TABLE_UNSPEC
	}
	return byte(table)
}

// ParseRule reads an RTM_NEWRULE or RTM_DELRULE. What only others' rules have is left out of it.
func ParseRule(data []byte) (Rule, error) {
	if len(data) < sizeofRule {
		return Rule{}, errShort
	}
	r := Rule{Family: data[0], Table: uint32(data[4]), Action: data[7], Not: native.Uint32(data[8:])&ruleInvert != 0}
	err := attributes(data[sizeofRule:], func(typ uint16, v []byte) (err error) {
		switch typ {
		case fraPrio:
			r.Priority, err = parseUint32(v)
		case fraMark:
			r.Mark, err = parseUint32(v)
		case fraMask:
			r.Mask, err = parseUint32(v)
		case fraGoto:
			r.Goto, err = parseUint32(v)
		case fraTable:
			r.Table, err = parseUint32(v)
		case fraProto:
			if len(v) < 1 {
				return errShort
			}
			r.Protocol = v[0]
		}
		return err
	})
	return r, err
}

// Rules returns the rules of a family that are of a protocol.
func (c *Conn) Rules(family, protocol uint8) (rules []Rule, err error) {
	request := append([]byte{family}, make([]byte, sizeofRule-1)...)
	err = c.dump(unix.RTM_GETRULE, request, unix.RTM_NEWRULE, func(data []byte) {
		if r, err := ParseRule(data); err == nil && r.Family == family && r.Protocol == protocol {
			rules = append(rules, r)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("netlink: read rules: %w", err)
	}
	return rules, nil
}
