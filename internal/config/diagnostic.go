package config

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Diagnostic is one thing that is wrong, or doubtful, in a configuration.
type Diagnostic struct {
	// File is the file's name as it was given, or as the file that includes it names it.
	File string `json:"file"`
	// Line and Col count from 1, Col in characters. Both are 0 when there is no place.
	Line int `json:"line"`
	Col  int `json:"column"`
	// Path leads to the place within File: routes[3].rate_limit[0].rate.
	Path string `json:"path"`
	// Message says what is wrong and how to mend it. It never holds a secret.
	Message string `json:"message"`
	// Code is a word for programs: config.unknown_key.
	Code string `json:"code"`
	// Warning is something doubtful that does not stop the gateway.
	Warning bool `json:"warning,omitempty"`

	// order is the place of File among the files, in the order they were read.
	order int
}

// String is the line that `sluice check` prints:
//
//	sluice.yaml:12:9: routes[3].rate_limit[0].rate: "100/fortnight" is not a rate, try 100/s (config.bad_rate)
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(d.Line))
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(d.Col))
	}
	b.WriteString(": ")
	if d.Warning {
		b.WriteString("warning: ")
	}
	if d.Path != "" {
		b.WriteString(d.Path)
		b.WriteString(": ")
	}
	b.WriteString(d.Message)
	b.WriteString(" (")
	b.WriteString(d.Code)
	b.WriteByte(')')
	return b.String()
}

// Diagnostics is everything that was found, in file order.
type Diagnostics []Diagnostic

// Errors reports how many of them are not warnings.
func (ds Diagnostics) Errors() int {
	n := 0
	for _, d := range ds {
		if !d.Warning {
			n++
		}
	}
	return n
}

// Err is nil when there are only warnings, and else an error whose text is all
// the errors, a line each.
func (ds Diagnostics) Err() error {
	if ds.Errors() == 0 {
		return nil
	}
	var lines []string
	for _, d := range ds {
		if !d.Warning {
			lines = append(lines, d.String())
		}
	}
	return errors.New(strings.Join(lines, "\n"))
}

// Sort puts them in file order: the main file first, then the included ones, each by line and column.
func (ds Diagnostics) Sort() {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.order, b.order),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Col, b.Col),
		)
	})
}
