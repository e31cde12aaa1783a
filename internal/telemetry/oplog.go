package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// NewLogger returns the log of operations: one line per event, for what level
// lets through at the time; as key=value text for a person at a terminal, as JSON
// for everything else. A Spill is looked through for what is behind it.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if terminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

func terminal(w io.Writer) bool {
	if s, ok := w.(*Spill); ok {
		w = s.w
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
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
