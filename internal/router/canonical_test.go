package router

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	strict = PathOptions{}
	slashy = PathOptions{KeepEncodedSlash: true}
	matrix = PathOptions{KeepParameters: true}
	both   = PathOptions{KeepEncodedSlash: true, KeepParameters: true}
)

func TestCanonicalize(t *testing.T) {
	for _, tt := range []struct {
		o         PathOptions
		raw, want string // want: the path, or the reason
	}{
		// Nothing to do.
		{strict, "/", "/"},
		{strict, "/users/42", "/users/42"},
		{strict, "/users/42/", "/users/42/"},
		{strict, "/-._~!$&'()*+,=:@", "/-._~!$&'()*+,=:@"},
		{strict, "/.well-known/..data/...", "/.well-known/..data/..."},
		{strict, "/a%20b/%C3%A9", "/a%20b/%C3%A9"},
		{strict, "/%25%3B%40", "/%25%3B%40"},
		{strict, "/%252e%252e/%252F", "/%252e%252e/%252F"},
		{strict, "", "/"},
		// Percent-encodings (RFC 3986 §6.2.2.1 and §6.2.2.2).
		{strict, "/%41%7a%30%2d%5F%7E", "/Az0-_~"},
		{strict, "/%c3%a9%2a", "/%C3%A9%2A"},
		{strict, "/%", BadPercent.Error()},
		{strict, "/%4", BadPercent.Error()},
		{strict, "/%4/1", BadPercent.Error()},
		{strict, "/%4g", BadPercent.Error()},
		{strict, "/%%41", BadPercent.Error()},
		{strict, "/%u0041", BadPercent.Error()},
		// Dot segments (RFC 3986 §5.2.4 and §6.2.2.3).
		{strict, "/.", "/"},
		{strict, "/..", "/"},
		{strict, "/./", "/"},
		{strict, "/../", "/"},
		{strict, "/a/.", "/a/"},
		{strict, "/a/..", "/"},
		{strict, "/a/./b", "/a/b"},
		{strict, "/a/../b", "/b"},
		{strict, "/a/b/..", "/a/"},
		{strict, "/a/b/../", "/a/"},
		{strict, "/a/b/c/./../../g", "/a/g"},
		{strict, "/../../etc/passwd", "/etc/passwd"},
		{strict, "/a/../../b", "/b"},
		{strict, "/a/%2e%2E/b", "/b"},
		{strict, "/a/.%2e/b", "/b"},
		{strict, "/a/%2e", "/a/"},
		{strict, "/a/..%2e/b", "/a/.../b"},
		// Empty segments.
		{strict, "//", "/"},
		{strict, "///a", "/a"},
		{strict, "/a//b", "/a/b"},
		{strict, "/a//", "/a/"},
		{strict, "/a//../b", "/b"},
		{strict, "/a/..//b", "/b"},
		{strict, "/a/b//..", "/a/"},
		{strict, "/long-segment-1//long-segment-2", "/long-segment-1/long-segment-2"},
		{strict, "/1234567/.", "/1234567/"},
		{strict, "/123456//b", "/123456/b"},
		{strict, "/1234567//b", "/1234567/b"},
		// Bytes that browsers send as they are.
		{strict, "/a|b[c]^\"<>`{}", "/a%7Cb%5Bc%5D%5E%22%3C%3E%60%7B%7D"},
		// Refused.
		{strict, "*", NotAbsolute.Error()},
		{strict, "a/b", NotAbsolute.Error()},
		{strict, "http://h/", NotAbsolute.Error()},
		{strict, "/a b", BadByte.Error()},
		{strict, "/a\tb", BadByte.Error()},
		{strict, "/a\x00b", BadByte.Error()},
		{strict, "/a\x7fb", BadByte.Error()},
		{strict, "/café", BadByte.Error()},
		{strict, "/a?b", BadByte.Error()},
		{strict, "/a#b", BadByte.Error()},
		{strict, "/a\\b", Backslash.Error()},
		{strict, "/..\\..\\etc", Backslash.Error()},
		{strict, "/a%5cb", EncodedBackslash.Error()},
		{both, "/a%5Cb", EncodedBackslash.Error()},
		{strict, "/a%00b", EncodedNUL.Error()},
		{both, "/a%00", EncodedNUL.Error()},
		{strict, "/a%2Fb", EncodedSlash.Error()},
		{matrix, "/a%2fb", EncodedSlash.Error()},
		{strict, "/..%2f..%2fetc/passwd", EncodedSlash.Error()},
		{strict, "/a;b", PathParameters.Error()},
		{slashy, "/..;/a", PathParameters.Error()},
		// Admitted.
		{slashy, "/a%2Fb", "/a%2Fb"},
		{slashy, "/a%2fb/../c", "/c"},
		{slashy, "/a%2f%2fb", "/a%2F%2Fb"},
		{slashy, "/a%2f..b", "/a%2F..b"},
		{slashy, "/a%2f..%2fb", HiddenDots.Error()},
		{slashy, "/..%2fb", HiddenDots.Error()},
		{slashy, "/a%2F..", HiddenDots.Error()},
		{slashy, "/a%2F%2e", HiddenDots.Error()},
		{slashy, "/./a%2F.", HiddenDots.Error()},
		{matrix, "/a;v=1/b;w", "/a;v=1/b;w"},
		{matrix, "/a;v=1/../b", "/b"},
		{matrix, "/..a;v", "/..a;v"},
		{matrix, "/..;/admin", HiddenDots.Error()},
		{matrix, "/a/%2e%2e;x/b", HiddenDots.Error()},
		{matrix, "/.;x/b", HiddenDots.Error()},
		{matrix, "/;x/b", HiddenDots.Error()},
		{both, "/a%2F..;x", HiddenDots.Error()},
		{both, "/a;x%2F..", HiddenDots.Error()},
		{both, "/a;x%2Fb", "/a;x%2Fb"},
	} {
		path, err := Canonicalize(nil, []byte(tt.raw), tt.o)
		got := string(path)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q with %+v: got %q, want %q", tt.raw, tt.o, got, tt.want)
		}
	}
}

func TestCanonicalizeReturnsACanonicalPathItself(t *testing.T) {
	dst := make([]byte, 0, 64)
	for _, path := range []string{"/", "/users/42/", "/a%20b/longer-than-eight/.x", "/a%2Fb/c;d"} {
		raw := []byte(path)
		got, err := Canonicalize(dst, raw, both)
		if err != nil || &got[0] != &raw[0] || len(got) != len(raw) {
			t.Errorf("%s: got %q, %v in other memory", path, got, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, raw := range [][]byte{[]byte("/a/b"), []byte("/a/%7eb/../c|"), []byte("/%2F"), []byte("")} {
			_, _ = Canonicalize(dst, raw, strict)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestCheckAppliesNarrowerOptions(t *testing.T) {
	for _, tt := range []struct {
		o    PathOptions
		path string
		want error
	}{
		{strict, "/a%20b/%2E", nil},
		{strict, "/a%2Fb", EncodedSlash},
		{matrix, "/a%2Fb;c", EncodedSlash},
		{slashy, "/a%2Fb;c", PathParameters},
		{both, "/a%2Fb;c", nil},
		{strict, "/%", nil},
	} {
		if got := tt.o.Check([]byte(tt.path)); !errors.Is(got, tt.want) {
			t.Errorf("%+v, %s: got %v, want %v", tt.o, tt.path, got, tt.want)
		}
	}
}

func TestHasDotSegment(t *testing.T) {
	for path, want := range map[string]bool{
		"/": false, "/a.b/...": false, "/.a/..b": false, "": false,
		"/.": true, "/a/..": true, "/a/../b": true, "/./b": true,
	} {
		if got := HasDotSegment([]byte(path)); got != want {
			t.Errorf("%q: got %t", path, got)
		}
	}
}

// TestEqualPathsHaveEqualBytes writes a canonical path in other ways, of which
// each means the same.
func TestEqualPathsHaveEqualBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segments := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "users", "longer-than-eight.json", "a%20b", "%C3%A9", ".x", "...", "a@b=c", "~"}), 0, 5).Draw(t, "segments")
		want := "/" + strings.Join(segments, "/")
		var raw strings.Builder
		for _, segment := range segments {
			raw.WriteString(pick(t, []string{"/", "/", "//", "/./", "/%2E/", "/gone/../", "/gone/%2e./", "/gone/x/..//../"}, "separator"))
			for i := 0; i < len(segment); i++ {
				switch c := segment[i]; {
				case c == '%':
					raw.WriteString(pick(t, []string{segment[i : i+3], strings.ToLower(segment[i : i+3])}, "case"))
					i += 2
				case isUnreserved(c) && chance(t, 3, "encoded"):
					fmt.Fprintf(&raw, pick(t, []string{"%%%02x", "%%%02X"}, "digits"), c)
				default:
					raw.WriteByte(c)
				}
			}
		}
		if len(segments) == 0 {
			raw.WriteString(pick(t, []string{"", "/", "/.", "/..", "//", "/a/.."}, "root"))
		}
		got, err := Canonicalize(nil, []byte(raw.String()), strict)
		if err != nil || string(got) != want {
			t.Fatalf("%q: got %q, %v, want %q", raw.String(), got, err, want)
		}
	})
}

// canonicalReference does what Canonicalize does, on lists of strings. Its only
// error is false.
func canonicalReference(raw string, o PathOptions) (string, bool) {
	if raw == "" {
		return "/", true
	}
	if raw[0] != '/' {
		return "", false
	}
	var stack []string
	segments := strings.Split(raw[1:], "/")
	for i, segment := range segments {
		seg, ok := referenceSegment(segment, o)
		if !ok {
			return "", false
		}
		switch seg {
		case "", ".":
		case "..":
			stack = stack[:max(len(stack)-1, 0)]
		default:
			stack = append(stack, seg)
			continue
		}
		if i == len(segments)-1 {
			stack = append(stack, "")
		}
	}
	return "/" + strings.Join(stack, "/"), true
}

func referenceSegment(segment string, o PathOptions) (string, bool) {
	const free = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	var out strings.Builder
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		fromPercent := c == '%'
		if fromPercent {
			if i+3 > len(segment) {
				return "", false
			}
			var ok bool
			if c, ok = hexByte(segment[i+1 : i+3]); !ok {
				return "", false
			}
			i += 2
		}
		switch {
		case fromPercent && (c == 0 || c == '\\' || c == '/' && !o.KeepEncodedSlash):
			return "", false
		case strings.IndexByte(free, c) >= 0, !fromPercent && strings.IndexByte("!$&'()*+,=:@", c) >= 0:
			out.WriteByte(c)
		case !fromPercent && c == ';':
			if !o.KeepParameters {
				return "", false
			}
			out.WriteByte(c)
		case fromPercent || strings.IndexByte("|[]^\"<>`{}", c) >= 0:
			out.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[c/16])+string("0123456789abcdef"[c%16])))
		default:
			return "", false
		}
	}
	s := out.String()
	if strings.HasPrefix(s, ";") {
		return "", false
	}
	if pieces := strings.Split(s, "%2F"); len(pieces) > 1 || strings.Contains(s, ";") {
		for _, piece := range pieces {
			if name, _, _ := strings.Cut(piece, ";"); name == "." || name == ".." {
				return "", false
			}
		}
	}
	return s, true
}

func hexByte(s string) (byte, bool) {
	const digits = "0123456789abcdef"
	s = strings.ToLower(s)
	hi, lo := strings.IndexByte(digits, s[0]), strings.IndexByte(digits, s[1])
	return byte(hi<<4 | lo&15), hi >= 0 && lo >= 0
}

func FuzzCanonicalize(f *testing.F) {
	for _, seed := range []string{"/", "/a/../b//c/.", "/%2e%2E/%41;x%2F..", "/.well-known/|", "/a%2Fb;c", "//a\\", "/1234567/.a/%c3%a9"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, options uint8) {
		o := PathOptions{KeepEncodedSlash: options&1 != 0, KeepParameters: options&2 != 0}
		want, ok := canonicalReference(string(raw), o)
		before := bytes.Clone(raw)
		got, err := Canonicalize(make([]byte, 0, options), raw, o)
		if (err == nil) != ok || string(got) != want && ok {
			t.Fatalf("%q: got %q, %v; want %q, %t", raw, got, err, want, ok)
		}
		if !bytes.Equal(raw, before) {
			t.Fatalf("%q was changed to %q", before, raw)
		}
		if err != nil {
			return
		}
		again, err := Canonicalize(nil, got, o)
		if err != nil || !bytes.Equal(again, got) || &again[0] != &got[0] {
			t.Fatalf("%q is not stable: %q, %v", got, again, err)
		}
		wide, err := Canonicalize(nil, raw, both)
		if err != nil || !bytes.Equal(wide, got) || o.Check(wide) != nil {
			t.Fatalf("%q: wider options give %q, %v, and Check %v", raw, wide, err, o.Check(wide))
		}
		if same, err := Canonicalize(nil, got, strict); (err == nil) != (strict.Check(got) == nil) || err == nil && &same[0] != &got[0] {
			t.Fatalf("%q: strict gives %v, and Check %v", got, err, strict.Check(got))
		}
	})
}
