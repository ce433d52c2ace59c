package keyfile

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/manycast/manycast/internal/control/identity"
)

const (
	identityType  = "MANYCAST IDENTITY"
	authorityType = "MANYCAST AUTHORITY PRIVATE KEY"
)

// WriteIdentity writes a control channel identity, 0600, in one step; an existing file is replaced only if told.
func WriteIdentity(path string, id identity.Identity, replace bool) error {
	return write(path, encodeIdentity(id), replace)
}

// ReadIdentity reads a control channel identity; a file that group or others may read is refused.
func ReadIdentity(path string) (identity.Identity, error) {
	text, err := read(path)
	if err != nil {
		return identity.Identity{}, err
	}
	id, err := decodeIdentity(text)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("identity %s: %w", path, err)
	}
	return id, nil
}

// WriteAuthority writes the authority's key, 0600, and its public half beside it at path + ".pub", 0644, which members need.
func WriteAuthority(path string, a identity.Authority, replace bool) error {
	text := pem.EncodeToMemory(&pem.Block{Type: authorityType, Bytes: a.Private.Seed()})
	if err := write(path, text, replace); err != nil {
		return err
	}
	public := path + ".pub"
	if err := os.WriteFile(public, []byte(base64.StdEncoding.EncodeToString(a.Public())+"\n"), 0o644); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	return os.Chmod(public, 0o644) // whatever the umask is: other users' daemons read it
}

// ReadAuthority reads the authority's private key.
func ReadAuthority(path string) (identity.Authority, error) {
	text, err := read(path)
	if err != nil {
		return identity.Authority{}, err
	}
	block, err := decode(text, authorityType)
	if err == nil && len(block.Bytes) != ed25519.SeedSize {
		err = fmt.Errorf("seed of %d bytes, want %d", len(block.Bytes), ed25519.SeedSize)
	}
	if err != nil {
		return identity.Authority{}, fmt.Errorf("authority %s: %w", path, err)
	}
	return identity.Authority{Private: ed25519.NewKeyFromSeed(block.Bytes)}, nil
}

// ReadAuthorityPublic reads the authority's public half: 32 bytes in base64. Anybody may read it, only its owner write.
func ReadAuthorityPublic(path string) (ed25519.PublicKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o022 != 0 || info.Size() > fileMax {
		return nil, fmt.Errorf("authority %s has mode %s: want a small regular file that only its owner may write (chmod 644 %s)", path, mode, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("authority %s: want 32 bytes in base64, the .pub file of `manycast key create authority`", path)
	}
	return key, nil
}

// encodeIdentity is the file's content: PEM, headers for people, the 32-byte seed and the certificate behind it.
func encodeIdentity(id identity.Identity) []byte {
	headers := map[string]string{"Name": id.Name, "Address": id.Address.String(), "Id": id.ID().String()}
	return pem.EncodeToMemory(&pem.Block{Type: identityType, Headers: headers, Bytes: append(id.Private.Seed(), id.Raw()...)})
}

func decodeIdentity(text []byte) (identity.Identity, error) {
	block, err := decode(text, identityType)
	if err != nil {
		return identity.Identity{}, err
	}
	if len(block.Bytes) < ed25519.SeedSize {
		return identity.Identity{}, fmt.Errorf("%d bytes, want a seed and a certificate", len(block.Bytes))
	}
	c, err := identity.Parse(block.Bytes[ed25519.SeedSize:])
	if err != nil {
		return identity.Identity{}, err
	}
	id := identity.Identity{Certificate: c, Private: ed25519.NewKeyFromSeed(block.Bytes[:ed25519.SeedSize])}
	if !c.Public.Equal(id.Private.Public()) {
		return identity.Identity{}, errors.New("certificate does not belong to the private key")
	}
	return id, nil
}
