package server

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"slices"

	gobgp "github.com/osrg/gobgp/v3/pkg/log"
)

// logger has the library write to ours.
type logger struct{ to *slog.Logger }

func (l logger) log(level slog.Level, msg string, fields gobgp.Fields) {
	ctx := context.Background()
	if !l.to.Enabled(ctx, level) {
		return
	}
	var args []any
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if key != gobgp.FieldFacility {
			args = append(args, key, fields[key])
		}
	}
	l.to.Log(ctx, level, msg, args...)
}

// Panic implements the library's Logger, as do the others.
func (l logger) Panic(msg string, fields gobgp.Fields) {
	l.log(slog.LevelError, msg, fields)
	panic(msg)
}

func (l logger) Fatal(msg string, fields gobgp.Fields) {
	l.log(slog.LevelError, msg, fields)
	os.Exit(1)
}

func (l logger) Error(msg string, fields gobgp.Fields) { l.log(slog.LevelError, msg, fields) }
func (l logger) Warn(msg string, fields gobgp.Fields)  { l.log(slog.LevelWarn, msg, fields) }
func (l logger) Info(msg string, fields gobgp.Fields)  { l.log(slog.LevelInfo, msg, fields) }
func (l logger) Debug(msg string, fields gobgp.Fields) { l.log(slog.LevelDebug, msg, fields) }

// SetLevel does nothing: the level is the process's.
func (l logger) SetLevel(gobgp.LogLevel) {}

func (l logger) GetLevel() gobgp.LogLevel {
	if l.to.Enabled(context.Background(), slog.LevelDebug) {
		return gobgp.DebugLevel
	}
	return gobgp.InfoLevel
}
