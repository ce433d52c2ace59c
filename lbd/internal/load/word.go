package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/manycast/manycast/internal/portion"
)

// Bounds of what an application may say.
const (
	MaxWord   = 64 << 10 // bytes
	MaxWanted = 64       // portions
	maxLoad   = 1000     // times what it can bear
)

// Word is what an application says of itself.
type Word struct {
	Load   *float64          // 1 is as much as it can bear, 0 to 1000; nil: it says nothing of it
	Wanted []portion.Portion // IPv4 portions that it asks for (Fig 19), at most MaxWanted
}

// Parse reads a number, or JSON: {"load": 0.7, "wanted": ["10.0.0.0/8", "0.0.0.3/0.0.0.255"]}, where one of both may be missing.
// Of what is wrong it takes nothing.
func Parse(b []byte) (Word, error) {
	b = bytes.TrimSpace(b)
	switch {
	case len(b) > MaxWord:
		return Word{}, fmt.Errorf("%d bytes, at most %d", len(b), MaxWord)
	case len(b) == 0:
		return Word{}, errors.New("empty: want a number, or JSON such as {\"load\": 0.7}")
	case b[0] == '{':
		return parseObject(b)
	}
	n, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return Word{}, fmt.Errorf("%.40q: want a number, or JSON such as {\"load\": 0.7}", b)
	}
	if err := checkLoad(n); err != nil {
		return Word{}, err
	}
	return Word{Load: &n}, nil
}

func parseObject(b []byte) (Word, error) {
	var said struct {
		Load   *float64 `json:"load"`
		Wanted []string `json:"wanted"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&said); err != nil {
		return Word{}, fmt.Errorf("want JSON such as {\"load\": 0.7, \"wanted\": [\"10.0.0.0/8\"]}: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Word{}, errors.New("something follows the JSON object: want one object")
	}
	if said.Load != nil {
		if err := checkLoad(*said.Load); err != nil {
			return Word{}, err
		}
	}
	wanted, err := parseWanted(said.Wanted)
	if err != nil {
		return Word{}, err
	}
	return Word{said.Load, wanted}, nil
}

func parseWanted(texts []string) ([]portion.Portion, error) {
	if len(texts) > MaxWanted {
		return nil, fmt.Errorf("%d portions wanted, at most %d", len(texts), MaxWanted)
	}
	var out []portion.Portion
	for _, text := range texts {
		p, err := portion.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("wanted: %w", err)
		}
		if !p.Is4() {
			return nil, fmt.Errorf("wanted: %v: want IPv4", p)
		}
		out = append(out, p)
	}
	return out, nil
}

func checkLoad(n float64) error {
	if math.IsNaN(n) || n < 0 || n > maxLoad {
		return fmt.Errorf("load %v: want 0 to %d, where 1 is as much as the application can bear", n, maxLoad)
	}
	return nil
}
