package keybus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/manycast/manycast/internal/keyfile"
)

// Recipients are the flags that say who gets a private key.
type Recipients struct {
	Members    []string
	memberKeys []string // NAME=FILE or NAME=PUBLIC
	file       string
}

// Add adds the flags.
func (r *Recipients) Add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&r.Members, "member", nil, "member registered on the bus that gets the private key")
	flags.StringArrayVar(&r.memberKeys, "member-key", nil, "member and its public key: NAME=FILE or NAME=BASE64")
	flags.StringVar(&r.file, "key-out", "", "keep the private key in this file too (0600)")
}

// None says that nobody would have the key.
func (r *Recipients) None() bool { return len(r.Members)+len(r.memberKeys) == 0 && r.file == "" }

// Resolve finds all public keys, before anything is made.
func (r *Recipients) Resolve(ctx context.Context, open OpenFunc) (*Handover, error) {
	h := &Handover{to: map[string]keyfile.MemberPublic{}, file: r.file}
	if r.file != "" {
		if _, err := os.Lstat(r.file); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("--key-out %s: there is something already", r.file)
		}
	}
	for _, text := range r.memberKeys {
		name, public, err := parseMemberKey(text)
		if err != nil {
			return nil, fmt.Errorf("--member-key: %w", err)
		}
		h.to[name] = public
	}
	if len(r.Members)+len(h.to) == 0 {
		return h, nil
	}
	var err error
	if h.buckets, err = open(ctx); err != nil {
		return nil, fmt.Errorf("keys are handed over by the bus: %w", err)
	}
	for _, name := range r.Members {
		public, err := h.buckets.Lookup(ctx, name)
		if err != nil {
			h.Close()
			return nil, err
		}
		h.to[name] = public
	}
	return h, nil
}

func parseMemberKey(text string) (string, keyfile.MemberPublic, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return "", keyfile.MemberPublic{}, fmt.Errorf("%q: want NAME=FILE or NAME=BASE64", text)
	}
	if err := keyfile.ValidMember(name); err != nil {
		return "", keyfile.MemberPublic{}, err
	}
	if public, err := keyfile.ParseMemberPublic(value); err == nil {
		return name, public, nil
	}
	m, err := keyfile.ReadMember(value)
	if err == nil {
		return name, m.Public(), nil
	}
	text2, readErr := os.ReadFile(value)
	if readErr != nil {
		return "", keyfile.MemberPublic{}, fmt.Errorf("%s: neither a public key nor a file: %w", name, readErr)
	}
	public, parseErr := keyfile.ParseMemberPublic(string(text2))
	if parseErr != nil {
		return "", keyfile.MemberPublic{}, fmt.Errorf("%s: %w", name, errors.Join(err, parseErr))
	}
	return name, public, nil
}
