package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The scalars of the document. Each parses itself and remembers how it was
// written (Text), so that it prints back the same. A parse error is a phrase
// that follows the quoted text in a diagnostic and says what to write instead:
// `is not a rate, try 100/s`.

// Duration is a length of time such as 500ms, 5s, 1h or 7d, never negative.
// Units may follow one another, as in 1h30m.
type Duration struct {
	time.Duration
	Text string
}

// Size is a number of bytes such as 512B, 64KiB, 10MiB or 1GiB.
type Size struct {
	Bytes int64
	Text  string
}

// Rate is N events in Per: 100/s, 5000/h, 300/90s. Both are at least 1.
type Rate struct {
	N    int64
	Per  time.Duration
	Text string
}

// Percent is a share such as 20% or 0.5%, as a number from 0 to 1.
type Percent struct {
	Of   float64
	Text string
}

// Expression is a number or a CEL expression, as written.
type Expression struct{ Text string }

// Secret is a value that is never printed.
type Secret struct{ value string }

// NewSecret makes a secret of a value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return s.value }

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s.value == "" }

// String hides the secret.
func (s Secret) String() string { return mask }

// GoString hides the secret.
func (s Secret) GoString() string { return mask }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// mask stands where a secret would.
const mask = "***"

// String returns the duration as it was written.
func (d Duration) String() string {
	if d.Text == "" {
		return d.Duration.String()
	}
	return d.Text
}

// String returns the size as it was written.
func (s Size) String() string {
	if s.Text == "" {
		return strconv.FormatInt(s.Bytes, 10) + "B"
	}
	return s.Text
}

// String returns the rate as it was written.
func (r Rate) String() string {
	if r.Text == "" {
		return fmt.Sprintf("%d/%ds", r.N, int64(r.Per.Seconds()))
	}
	return r.Text
}

// String returns the share as it was written.
func (p Percent) String() string {
	if p.Text == "" {
		return strconv.FormatFloat(p.Of*100, 'g', -1, 64) + "%"
	}
	return p.Text
}

// MarshalText returns the duration as it was written.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText returns the size as it was written.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText returns the rate as it was written.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// MarshalText returns the share as it was written.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// MarshalText returns the expression as it was written.
func (e Expression) MarshalText() ([]byte, error) { return []byte(e.Text), nil }

// units of durations, longest first so that "ms" is not taken for "m".
func unitOf(s string) (unit time.Duration, rest string) {
	for _, u := range [...]struct {
		name string
		d    time.Duration
	}{
		{"ns", time.Nanosecond},
		{"us", time.Microsecond},
		{"µs", time.Microsecond},
		{"ms", time.Millisecond},
		{"s", time.Second},
		{"m", time.Minute},
		{"h", time.Hour},
		{"d", 24 * time.Hour},
	} {
		if rest, ok := strings.CutPrefix(s, u.name); ok {
			return u.d, rest
		}
	}
	return 0, s
}

// ParseDuration reads a duration. 0 needs no unit.
func ParseDuration(text string) (Duration, error) {
	if text == "0" {
		return Duration{Text: text}, nil
	}
	var total time.Duration
	rest := text
	for first := true; first || rest != ""; first = false {
		digits := leadingDigits(rest)
		whole, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return Duration{}, durationError(text)
		}
		rest = rest[len(digits):]
		fraction := ""
		if len(rest) > 0 && rest[0] == '.' {
			fraction = leadingDigits(rest[1:])
			if fraction == "" {
				return Duration{}, durationError(text)
			}
			rest = rest[1+len(fraction):]
		}
		unit, after := unitOf(rest)
		if unit == 0 {
			return Duration{}, durationError(text)
		}
		rest = after
		if whole > int64(math.MaxInt64/unit) {
			return Duration{}, errors.New("is too long a duration, the longest is 106751d")
		}
		part := time.Duration(whole) * unit
		if fraction != "" {
			f, _ := strconv.ParseFloat("0."+fraction, 64)
			part += time.Duration(f * float64(unit))
		}
		if part < 0 || total > math.MaxInt64-part {
			return Duration{}, errors.New("is too long a duration, the longest is 106751d")
		}
		total += part
	}
	return Duration{Duration: total, Text: text}, nil
}

func durationError(text string) error {
	digits := leadingDigits(strings.TrimLeft(text, "+- "))
	if digits == "" {
		return errors.New("is not a duration, try 5s, 500ms, 1h or 7d")
	}
	word := strings.ToLower(strings.TrimSpace(strings.TrimLeft(text, "+- ")[len(digits):]))
	unit := "s"
	switch {
	case word == "" || strings.HasPrefix(word, "s"):
	case strings.HasPrefix(word, "mil"), strings.HasPrefix(word, "msec"), word == "ms":
		unit = "ms"
	case strings.HasPrefix(word, "mic"):
		unit = "us"
	case strings.HasPrefix(word, "m"):
		unit = "m"
	case strings.HasPrefix(word, "h"):
		unit = "h"
	case strings.HasPrefix(word, "d"):
		unit = "d"
	case strings.HasPrefix(word, "w"):
		if n, err := strconv.ParseInt(digits, 10, 32); err == nil {
			digits = strconv.FormatInt(7*n, 10)
		}
		unit = "d"
	}
	if word == "" && !strings.ContainsAny(text, "+-") {
		return fmt.Errorf("has no unit, try %s%s", digits, unit)
	}
	return fmt.Errorf("is not a duration, try %s%s", digits, unit)
}

// ParseSize reads a size. 0 needs no unit.
func ParseSize(text string) (Size, error) {
	if text == "0" {
		return Size{Text: text}, nil
	}
	digits := leadingDigits(text)
	var shift uint
	switch text[len(digits):] {
	case "B":
	case "KiB":
		shift = 10
	case "MiB":
		shift = 20
	case "GiB":
		shift = 30
	default:
		return Size{}, sizeError(text, digits)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if digits == "" {
		return Size{}, sizeError(text, digits)
	}
	if err != nil || n > math.MaxInt64>>shift {
		return Size{}, errors.New("is too large a size, the largest is 8589934591GiB")
	}
	return Size{Bytes: n << shift, Text: text}, nil
}

func sizeError(text, digits string) error {
	if digits == "" {
		return errors.New("is not a size, try 64KiB, 10MiB or 1GiB")
	}
	unit := "KiB"
	word := strings.ToLower(strings.TrimLeft(text[len(digits):], " .0123456789"))
	switch {
	case word == "":
		return fmt.Errorf("has no unit, try %sKiB, or %sB for bytes", digits, digits)
	case strings.HasPrefix(word, "m"):
		unit = "MiB"
	case strings.HasPrefix(word, "g"), strings.HasPrefix(word, "t"):
		unit = "GiB"
	case strings.HasPrefix(word, "b"):
		unit = "B"
	}
	return fmt.Errorf("is not a size, try %s%s", digits, unit)
}

// ParseRate reads a rate.
func ParseRate(text string) (Rate, error) {
	count, window, found := strings.Cut(text, "/")
	digits := leadingDigits(count)
	bad := func() (Rate, error) {
		if digits == "" {
			digits = "100"
		}
		return Rate{}, fmt.Errorf("is not a rate, try %s/s", digits)
	}
	if !found || digits == "" || digits != count {
		return bad()
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > 1e12 {
		return Rate{}, errors.New("is too large a rate, the largest is 1000000000000/s")
	}
	times := leadingDigits(window)
	unit, rest := unitOf(window[len(times):])
	if rest != "" || unit < time.Second {
		return bad()
	}
	k := int64(1)
	if times != "" {
		if k, err = strconv.ParseInt(times, 10, 64); err != nil || k > int64(366*24*time.Hour/unit) {
			return Rate{}, errors.New("has too long a window, the longest is 366d")
		}
	}
	if n == 0 || k == 0 {
		return Rate{}, errors.New("admits nothing, the smallest count and window are 1: try 1/s")
	}
	return Rate{N: n, Per: time.Duration(k) * unit, Text: text}, nil
}

// ParsePercent reads a share of at most 100%.
func ParsePercent(text string) (Percent, error) {
	number, found := strings.CutSuffix(text, "%")
	digits := leadingDigits(number)
	if digits == "" || strings.Trim(number, "0123456789.") != "" {
		return Percent{}, errors.New("is not a percentage, try 20%")
	}
	if !found {
		return Percent{}, fmt.Errorf("has no percent sign, try %s%%", digits)
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return Percent{}, errors.New("is not a percentage, try 20%")
	}
	if f > 100 {
		return Percent{}, errors.New("is more than everything, the largest percentage is 100%")
	}
	return Percent{Of: f / 100, Text: text}, nil
}

// parsePrefix reads a network, or one address as the network of it alone.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, errors.New("has a zone, which means nothing elsewhere: leave it out")
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("is not a network, try 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("is an IPv4 network written as IPv6, write it as IPv4, such as 10.0.0.0/8")
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits beyond its length, write %s", p.Masked())
	}
	return p, nil
}

func leadingDigits(s string) string {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i]
}
