package wire_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

func TestHeaderOfThePrograms(t *testing.T) {
	want := map[string]int64{
		"OPTION_KIND": wire.OptionKind, "EXID": wire.ExID,
		"OPTION_OFF_EXID": wire.OptionOffExID, "OPTION_OFF_TAG": wire.OptionOffTag, "OPTION_OFF_COOKIE": wire.OptionOffCookie,
		"OPTION_OFF_ADDRESS": wire.OptionOffAddress, "OPTION_OFF_PORT": wire.OptionOffPort,
		"OPTION_SIZE": wire.OptionSize, "OPTION_DESTINATION_SIZE": wire.OptionDestinationSize, "OPTIONS_MAX": wire.OptionsMax,
		"COOKIE_SIZE": wire.CookieSize, "PORT": wire.Port, "CHANGE_MAGIC": wire.ChangeMagic, "CHANGE_VERSION": wire.ChangeVersion,
		"CHANGE_OFF_MAGIC": wire.ChangeOffMagic, "CHANGE_OFF_VERSION": wire.ChangeOffVersion, "CHANGE_OFF_RESERVED": wire.ChangeOffReserved,
		"CHANGE_OFF_TAG": wire.ChangeOffTag, "CHANGE_OFF_COOKIE": wire.ChangeOffCookie, "CHANGE_OFF_USER_PORT": wire.ChangeOffUserPort,
		"CHANGE_OFF_VIP_PORT": wire.ChangeOffVIPPort, "CHANGE_OFF_OLD_PORT": wire.ChangeOffOldPort, "CHANGE_OFF_NEW_PORT": wire.ChangeOffNewPort,
		"CHANGE_OFF_USER": wire.ChangeOffUser, "CHANGE_OFF_VIP": wire.ChangeOffVIP, "CHANGE_OFF_OLD": wire.ChangeOffOld,
		"CHANGE_OFF_NEW": wire.ChangeOffNew, "CHANGE_OFF_SEQUENCE": wire.ChangeOffSequence, "CHANGE_OFF_TIME": wire.ChangeOffTime,
		"CHANGE_OFF_KEY_ID": wire.ChangeOffKeyID, "CHANGE_OFF_SIGNATURE": wire.ChangeOffSignature, "CHANGE_SIZE": wire.ChangeSize,
	}
	text, err := os.ReadFile("bpf/dyntcp.h")
	if err != nil {
		t.Fatal(err)
	}
	for _, define := range regexp.MustCompile(`(?m)^#define DYNTCP_(\w+) (\w+)`).FindAllStringSubmatch(string(text), -1) {
		got, err := strconv.ParseInt(define[2], 0, 64)
		if value, ok := want[define[1]]; err != nil || !ok || got != value {
			t.Errorf("DYNTCP_%s is %s (%v), want %d", define[1], define[2], err, value)
		}
		delete(want, define[1])
	}
	for name := range want {
		t.Errorf("DYNTCP_%s is not in the header", name)
	}
}
