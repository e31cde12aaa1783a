package exchange

import (
	"slices"
	"strings"
	"testing"
)

func TestLookupFindsEveryKnownNameInAnyCase(t *testing.T) {
	for id := Other + 1; id < known; id++ {
		name := string(id.Name())
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := Lookup([]byte(spelling)); got != id {
				t.Errorf("%s: %d, want %d", spelling, got, id)
			}
		}
		for _, other := range []string{name + "x", name[1:], "x" + name, strings.ReplaceAll(name, "-", "_")} {
			if got := Lookup([]byte(other)); got != Other && !strings.EqualFold(string(got.Name()), other) {
				t.Errorf("%s: %s", other, got.Name())
			}
		}
	}
	for _, name := range []string{"", "x", "Kelvin-\u212a", "hos\u017f"} {
		if got := Lookup([]byte(name)); got != Other {
			t.Errorf("%q: %s", name, got.Name())
		}
	}
}

// list is a header as text, for comparing.
func list(h *Header) string {
	var b strings.Builder
	for i := range h.Len() {
		f := h.At(i)
		b.WriteString(string(f.Name) + "=" + string(f.Value) + " ")
	}
	return strings.TrimSpace(b.String())
}

func header(fields ...string) *Header {
	h := new(Header)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		h.Add([]byte(name), []byte(value))
	}
	return h
}

func TestAHeaderKeepsOrderAndRepeats(t *testing.T) {
	h := header("A=1", "Accept=2", "a=3", "ACCEPT=4", "B=")
	for _, c := range []struct{ name, first, all string }{
		{"a", "1", "1 3"}, {"accept", "2", "2 4"}, {"B", "", ""}, {"none", "", ""},
	} {
		var all []string
		for v := range h.Values([]byte(c.name)) {
			all = append(all, string(v))
		}
		if got := string(h.Get([]byte(c.name))); got != c.first || strings.Join(all, " ") != c.all {
			t.Errorf("%s: first %q, all %q", c.name, got, all)
		}
	}
	if h.Get([]byte("b")) == nil || h.Get([]byte("none")) != nil {
		t.Error("an empty value is not an absent one")
	}
}

func TestHeaderChanges(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*Header)
		want string
	}{
		{"set replaces all in the place of the first", func(h *Header) { h.Set([]byte("x-a"), []byte("9")) }, "x-a=9 Accept=2 Host=4"},
		{"set adds what is not there", func(h *Header) { h.Set([]byte("New"), []byte("9")) }, "X-A=1 Accept=2 x-a=3 Host=4 New=9"},
		{"set by ID", func(h *Header) { h.SetID(Host, []byte("9")) }, "X-A=1 Accept=2 x-a=3 Host=9"},
		{"del removes all", func(h *Header) { h.Del([]byte("X-a")) }, "Accept=2 Host=4"},
		{"del by ID", func(h *Header) { h.DelID(Host) }, "X-A=1 Accept=2 x-a=3"},
		{"del of nothing", func(h *Header) { h.DelID(Cookie) }, "X-A=1 Accept=2 x-a=3 Host=4"},
		{"del then add", func(h *Header) { h.DelID(Host); h.AddID(Host, []byte("5")) }, "X-A=1 Accept=2 x-a=3 Host=5"},
		{"del by function", func(h *Header) { h.DelFunc(func(f *Field) bool { return len(f.Name) == 3 }) }, "Accept=2 Host=4"},
		{"reset", func(h *Header) { h.Reset() }, ""},
	} {
		h := header("X-A=1", "Accept=2", "x-a=3", "Host=4")
		c.do(h)
		if got := list(h); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestReindexAfterARename(t *testing.T) {
	h := header("Old=1")
	h.At(0).Name = []byte("cookie")
	h.Reindex()
	if string(h.GetID(Cookie)) != "1" || h.Get([]byte("old")) != nil {
		t.Errorf("%s", list(h))
	}
}

func TestHeaderOperationsDoNotAllocate(t *testing.T) {
	h := header("X-A=1", "Accept=2", "Host=4", "Cookie=5")
	name, value := []byte("x-a"), []byte("7")
	if n := testing.AllocsPerRun(100, func() {
		h.Set(name, value)
		_ = h.Get(name)
		_ = h.GetID(Host)
		h.DelID(Cookie)
		h.AddID(Cookie, value)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// A model of Header: names and values in a slice.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x10\x21\x32\x43"))
	names := []string{"Host", "host", "X-A", "x-a", "Accept", "COOKIE"}
	f.Fuzz(func(t *testing.T, ops []byte) {
		h := new(Header)
		type field struct{ name, value string }
		var model []field
		is := func(name string) func(field) bool {
			return func(f field) bool { return strings.EqualFold(f.name, name) }
		}
		for i, op := range ops {
			name, value := names[int(op>>4)%len(names)], string(rune('a'+i%26))
			switch op & 3 {
			case 0:
				h.Add([]byte(name), []byte(value))
				model = append(model, field{name, value})
			case 1:
				h.Set([]byte(name), []byte(value))
				at := slices.IndexFunc(model, is(name))
				if at < 0 {
					model = append(model, field{name, value})
					break
				}
				rest := slices.DeleteFunc(slices.Clone(model[at+1:]), is(name))
				model = append(append(slices.Clone(model[:at]), field{name, value}), rest...)
			case 2:
				h.Del([]byte(name))
				model = slices.DeleteFunc(model, is(name))
			case 3:
				at := slices.IndexFunc(model, is(name))
				if got := h.Get([]byte(name)); (got == nil) != (at < 0) || at >= 0 && string(got) != model[at].value {
					t.Fatalf("Get %s: %q of %v", name, got, model)
				}
			}
		}
		var want []string
		for _, m := range model {
			want = append(want, m.name+"="+m.value)
		}
		if got := list(h); got != strings.Join(want, " ") {
			t.Fatalf("got  %s\nwant %s", got, strings.Join(want, " "))
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	names := [][]byte{[]byte("Host"), []byte("user-agent"), []byte("X-Something-Else"), []byte("Accept-Encoding")}
	for i := 0; b.Loop(); i++ {
		Lookup(names[i&3])
	}
}
