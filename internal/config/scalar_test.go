package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestDurationsParseAndPrintBack(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "1ns": 1, "2us": 2e3, "2µs": 2e3, "500ms": 500 * time.Millisecond, "5s": 5 * time.Second,
		"1.5s": 1500 * time.Millisecond, "0.5h": 30 * time.Minute, "3m": 3 * time.Minute, "1h": time.Hour,
		"1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "05s": 5 * time.Second,
		"106751d": 106751 * 24 * time.Hour,
	} {
		got, err := ParseDuration(text)
		if err != nil || got.Duration != want || got.String() != text {
			t.Errorf("ParseDuration(%q) = %d %q (%v), want %d", text, got.Duration, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                      "is not a duration, try 5s, 500ms, 1h or 7d",
		"soon":                  "is not a duration, try 5s, 500ms, 1h or 7d",
		"30":                    "has no unit, try 30s",
		"-5s":                   "is not a duration, try 5s",
		"+5s":                   "is not a duration, try 5s",
		"5 s":                   "is not a duration, try 5s",
		"5sec":                  "is not a duration, try 5s",
		"5 minutes":             "is not a duration, try 5m",
		"5msec":                 "is not a duration, try 5ms",
		"5 millis":              "is not a duration, try 5ms",
		"5 micros":              "is not a duration, try 5us",
		"2 hours":               "is not a duration, try 2h",
		"2 days":                "is not a duration, try 2d",
		"2w":                    "is not a duration, try 14d",
		"1.s":                   "is not a duration, try 1s",
		"s":                     "is not a duration, try 5s, 500ms, 1h or 7d",
		"1h30":                  "is not a duration, try 1h",
		"106752d":               "is too long a duration, the longest is 106751d",
		"106751d300d":           "is too long a duration, the longest is 106751d",
		"99999999999999999999s": "is not a duration, try 99999999999999999999s",
	} {
		_, err := ParseDuration(text)
		if err == nil || err.Error() != want {
			t.Errorf("ParseDuration(%q): %v, want %q", text, err, want)
		}
	}
}

func TestSizesParseAndPrintBack(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "0B": 0, "512B": 512, "1KiB": 1024, "64KiB": 65536, "10MiB": 10 << 20, "1GiB": 1 << 30, "8589934591GiB": 8589934591 << 30,
	} {
		got, err := ParseSize(text)
		if err != nil || got.Bytes != want || got.String() != text {
			t.Errorf("ParseSize(%q) = %d %q (%v), want %d", text, got.Bytes, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "is not a size, try 64KiB, 10MiB or 1GiB", "large": "is not a size, try 64KiB, 10MiB or 1GiB",
		"10": "has no unit, try 10KiB, or 10B for bytes", "10KB": "is not a size, try 10KiB", "10k": "is not a size, try 10KiB",
		"10MB": "is not a size, try 10MiB", "10 MiB": "is not a size, try 10MiB", "1.5MiB": "is not a size, try 1MiB",
		"1gb": "is not a size, try 1GiB", "1TiB": "is not a size, try 1GiB", "5bytes": "is not a size, try 5B",
		"-1KiB": "is not a size, try 64KiB, 10MiB or 1GiB", "KiB": "is not a size, try 64KiB, 10MiB or 1GiB",
		"8589934592GiB": "is too large a size, the largest is 8589934591GiB", "99999999999999999999B": "is too large a size, the largest is 8589934591GiB",
	} {
		_, err := ParseSize(text)
		if err == nil || err.Error() != want {
			t.Errorf("ParseSize(%q): %v, want %q", text, err, want)
		}
	}
}

func TestRatesParseAndPrintBack(t *testing.T) {
	for text, want := range map[string]Rate{
		"100/s":     {N: 100, Per: time.Second},
		"6000/m":    {N: 6000, Per: time.Minute},
		"5000/h":    {N: 5000, Per: time.Hour},
		"1000000/d": {N: 1000000, Per: 24 * time.Hour},
		"300/90s":   {N: 300, Per: 90 * time.Second},
		"1/366d":    {N: 1, Per: 366 * 24 * time.Hour},
	} {
		want.Text = text
		got, err := ParseRate(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseRate(%q) = %+v (%v), want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "is not a rate, try 100/s", "100": "is not a rate, try 100/s", "100/fortnight": "is not a rate, try 100/s",
		"7/ms": "is not a rate, try 7/s", "7/": "is not a rate, try 7/s", "7/s2": "is not a rate, try 7/s", "7 / s": "is not a rate, try 7/s",
		"1.5/s": "is not a rate, try 1/s", "-1/s": "is not a rate, try 100/s", "/s": "is not a rate, try 100/s",
		"0/s": "admits nothing, the smallest count and window are 1: try 1/s", "1/0s": "admits nothing, the smallest count and window are 1: try 1/s",
		"1/367d": "has too long a window, the longest is 366d", "1000000000001/s": "is too large a rate, the largest is 1000000000000/s",
	} {
		_, err := ParseRate(text)
		if err == nil || err.Error() != want {
			t.Errorf("ParseRate(%q): %v, want %q", text, err, want)
		}
	}
}

func TestPercentagesParseAndPrintBack(t *testing.T) {
	for text, want := range map[string]float64{"0%": 0, "0.5%": 0.005, "20%": 0.2, "100%": 1, "12.5%": 0.125} {
		got, err := ParsePercent(text)
		if err != nil || got.Of != want || got.String() != text {
			t.Errorf("ParsePercent(%q) = %v %q (%v), want %v", text, got.Of, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "is not a percentage, try 20%", "20": "has no percent sign, try 20%", "0.2": "has no percent sign, try 0%", "%": "is not a percentage, try 20%",
		"-1%": "is not a percentage, try 20%", "1.2.3%": "is not a percentage, try 20%", "101%": "is more than everything, the largest percentage is 100%",
	} {
		_, err := ParsePercent(text)
		if err == nil || err.Error() != want {
			t.Errorf("ParsePercent(%q): %v, want %q", text, err, want)
		}
	}
}

func TestNetworksParse(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "192.0.2.1": "192.0.2.1/32", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128",
		"0.0.0.0/0": "0.0.0.0/0", "::ffff:192.0.2.1": "192.0.2.1/32",
	} {
		got, err := parsePrefix(text)
		if err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("parsePrefix(%q) = %v (%v), want %s", text, got, err, want)
		}
	}
}

func TestScalarsMadeInCodePrintSomethingThatParses(t *testing.T) {
	if d, err := ParseDuration(Duration{Duration: 90 * time.Second}.String()); err != nil || d.Duration != 90*time.Second {
		t.Error(d, err)
	}
	if s, err := ParseSize(Size{Bytes: 5}.String()); err != nil || s.Bytes != 5 {
		t.Error(s, err)
	}
	if p, err := ParsePercent(Percent{Of: 0.125}.String()); err != nil || p.Of != 0.125 {
		t.Error(p, err)
	}
	if r, err := ParseRate(Rate{N: 5, Per: 90 * time.Second}.String()); err != nil || r.N != 5 || r.Per != 90*time.Second {
		t.Error(r, err)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	s := NewSecret("hunter2-hunter2")
	holder := struct {
		S Secret
		P *Secret
	}{s, &s}
	asJSON, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x", s, s, s, s, s, s), fmt.Sprintf("%v %+v %#v", holder, holder, holder), fmt.Sprintf("%v", &holder), string(asJSON),
	} {
		if strings.Contains(printed, "hunter2") || strings.Contains(printed, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("printed: %s", printed)
		}
	}
	if s.Reveal() != "hunter2-hunter2" || s.Empty() || !(Secret{}).Empty() {
		t.Error("a secret does not hold what it was made of")
	}
}
