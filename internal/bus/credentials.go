package bus

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/manycast/manycast/internal/wholefile"
)

// CredentialsPath is where the role's credentials are kept below the bus' data directory.
func CredentialsPath(dataDir, role string) string { return filepath.Join(dataDir, "creds", role+".nk") }

// A credential file has the role in a comment line and the seed below it.
const rolePrefix = "# manycast bus, role "

func formatCredentials(role string, seed []byte) []byte {
	return fmt.Appendf(nil, "%s%s\n%s\n", rolePrefix, role, seed)
}

func parseCredentials(path string, data []byte) (seed []byte, role string, err error) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if name, ok := strings.CutPrefix(string(line), rolePrefix); ok {
			role = name
		} else if len(line) > 0 && line[0] != '#' {
			seed = line
		}
	}
	if role == "" || strings.ContainsAny(role, " .*>\t") {
		return nil, "", fmt.Errorf("bus credentials %s: no line %q", path, rolePrefix+"NAME")
	}
	if _, err := nkeys.FromSeed(seed); err != nil {
		return nil, "", fmt.Errorf("bus credentials %s: no nkey seed in it: %w", path, err)
	}
	return seed, role, nil
}

// signer gives the public key and the function that signs the server's nonce.
func signer(seed []byte) (public string, sign func([]byte) ([]byte, error), err error) {
	kp, err := nkeys.FromSeed(seed)
	if err != nil {
		return "", nil, err
	}
	public, err = kp.PublicKey()
	if err != nil {
		return "", nil, err
	}
	return public, kp.Sign, nil
}

// readCredentials reads a seed that nobody else may read, and the role that its file is named for.
func readCredentials(path string) (seed []byte, role string, err error) {
	if path == "" {
		return nil, "", errors.New("bus: no credentials: set bus.credentials to a file that `manycast bus` made at its first start")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", fmt.Errorf("bus credentials: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, "", fmt.Errorf("bus credentials %s may be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("bus credentials: %w", err)
	}
	return parseCredentials(path, data)
}

// ensureCredentials makes the role's credentials where there are none.
func ensureCredentials(path, role string) (made bool, err error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, nil // what else is wrong shows when it is read
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, fmt.Errorf("bus credentials: %w", err)
	}
	return true, makeCredentials(path, role)
}

// publicKey reads the public key of credentials that have to be of role.
func publicKey(path, role string) (string, error) {
	seed, name, err := readCredentials(path)
	if err != nil {
		return "", err
	}
	if name != role {
		return "", fmt.Errorf("bus credentials %s are of role %s: want %s", path, name, role)
	}
	public, _, err := signer(seed)
	if err != nil {
		return "", fmt.Errorf("bus credentials %s: %w", path, err)
	}
	return public, nil
}

func makeCredentials(path, role string) error {
	kp, err := nkeys.CreateUser()
	if err != nil {
		return fmt.Errorf("bus credentials: %w", err)
	}
	seed, err := kp.Seed()
	if err != nil {
		return fmt.Errorf("bus credentials: %w", err)
	}
	if err := wholefile.Write(path, formatCredentials(role, seed)); err != nil {
		return fmt.Errorf("bus credentials: %w", err)
	}
	return nil
}
