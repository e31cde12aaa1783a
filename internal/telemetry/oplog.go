package telemetry

import (
	"io"
	"log/slog"
)

// NewLogger returns the log of operations: one line per event, as JSON or as
// key=value text, for what level lets through at the time. Writing is not
// buffered.
func NewLogger(w io.Writer, json bool, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Level is the level that a configuration names: debug, info, warn or error;
// info for anything else.
func Level(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
