package semantics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// arrived is when the responses of the tables arrive, and their Date.
var arrived = time.Date(2026, 11, 25, 13, 0, 0, 0, time.UTC)

// header makes a header of lines "Name: value" with | between.
func header(lines string) *exchange.Header {
	h := new(exchange.Header)
	if lines == "" {
		return h
	}
	for line := range strings.SplitSeq(lines, "|") {
		name, value, _ := strings.Cut(line, ":")
		h.Add([]byte(strings.TrimSpace(name)), []byte(strings.TrimSpace(value)))
	}
	return h
}

// answer makes a response of a request in words: a method, a status "=404",
// "auth", "cookie", "no-store". Lines get a Date when they have none.
func answer(request, lines string) *semantics.Answer {
	a := &semantics.Answer{
		Method: "GET", Status: 200, Header: header(lines), Requested: arrived, Received: arrived,
		Ask: semantics.ReadAsk(new(exchange.Header)),
	}
	for word := range strings.FieldsSeq(request) {
		switch {
		case word == "auth":
			a.Authorization = true
		case word == "cookie":
			a.Cookie = true
		case word == "no-store":
			a.Ask.NoStore = true
		case word[0] == '=':
			a.Status = 0
			for _, c := range word[1:] {
				a.Status = a.Status*10 + int(c-'0')
			}
		default:
			a.Method = word
		}
	}
	if !a.Header.Has(exchange.Date) {
		a.Header.AddID(exchange.Date, at(0))
	}
	return a
}

// at is the date so many seconds after arrived.
func at(seconds int64) []byte { return semantics.AppendDate(nil, arrived.Unix()+seconds) }

func date(seconds int64) string { return string(at(seconds)) }

// each runs a table that must not be empty.
func each[T any](t *testing.T, table []T, f func(*testing.T, T)) {
	t.Helper()
	if len(table) == 0 {
		t.Fatal("there are no cases")
	}
	for _, row := range table {
		f(t, row)
	}
}
