package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// lines is a chain of some lines.
func lines(t testing.TB, n int) []byte {
	t.Helper()
	end := link{hash: first}
	var b []byte
	at := time.Date(2026, 11, 25, 9, 0, 0, 123456789, time.FixedZone("", 3600))
	for i := range n {
		b = end.append(b, newEntry(Event{
			Kind: "admin.PUT /v1/config", Actor: "token", Address: netip.MustParseAddr("192.0.2.1"), Request: "id", Target: "/v1/config",
			Status: 200, Reason: "\"<why>\"\n\u2028\xff\x00", Detail: map[string]any{"n": i},
		}, at.Add(time.Duration(i)*time.Second)))
	}
	return b
}

// The form is promised: others check it with their own tools.
func TestALineIsOfThePromisedForm(t *testing.T) {
	const want = `{"seq":1,"time":"2026-11-25T08:00:00.123456Z","kind":"admin.PUT /v1/config","actor":"token","address":"192.0.2.1",` +
		`"request":"id","target":"/v1/config","status":200,"reason":"\"<why>\"\n\u2028\ufffd\u0000","detail":{"n":0},` +
		`"prev":"0000000000000000000000000000000000000000000000000000000000000000"`
	all := strings.SplitAfter(string(lines(t, 2)), "\n")
	sum := sha256.Sum256([]byte(want + "}"))
	hash := hex.EncodeToString(sum[:])
	if got := want + `,"hash":"` + hash + "\"}\n"; all[0] != got {
		t.Errorf("got  %s\nwant %s", all[0], got)
	}
	if !strings.Contains(all[1], `,"prev":"`+hash+`","hash":"`) {
		t.Errorf("the second line does not name the first: %s", all[1])
	}
	// What the documentation says about sed and sha256sum.
	without := regexp.MustCompile(`,"hash":"[0-9a-f]{64}"\}\n$`).ReplaceAllString(all[1], "}")
	sum = sha256.Sum256([]byte(without))
	var d struct{ Hash string }
	if err := json.Unmarshal([]byte(all[1]), &d); err != nil || d.Hash != hex.EncodeToString(sum[:]) {
		t.Errorf("%v: the hash is %s, of the rest %x", err, d.Hash, sum)
	}
}

func TestOneFlippedByteIsFound(t *testing.T) {
	text := lines(t, 5)
	if n, err := Verify(bytes.NewReader(text)); n != 5 || err != nil {
		t.Fatalf("%d %v", n, err)
	}
	tried := 0
	for i := range text {
		line := bytes.Count(text[:i], []byte("\n"))
		for _, mask := range []byte{0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF} {
			flipped := bytes.Clone(text)
			flipped[i] ^= mask
			n, err := Verify(bytes.NewReader(flipped))
			var broken *Broken
			if !errors.As(err, &broken) || broken.Line != line+1 || n != line {
				t.Fatalf("byte %d of line %d: %d lines hold, %v", i, line+1, n, err)
			}
			tried++
		}
	}
	t.Logf("%d flips of %d bytes found", tried, len(text))
}

func TestLinesCannotBeMoved(t *testing.T) {
	all := bytes.SplitAfter(lines(t, 6), []byte("\n"))[:6]
	other := link{hash: first}
	forged := other.append(nil, newEntry(Event{Kind: "forged"}, time.Unix(0, 0)))
	forged = other.append(forged[:0], newEntry(Event{Kind: "forged"}, time.Unix(0, 0))) // number 2 of another chain
	far := link{seq: 6, hash: first}
	zero := link{seq: ^uint64(0), hash: first}
	behind := link{hash: strings.Repeat("a", 64)}
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for _, c := range []struct {
		name string
		text []byte
		line int // the broken one; 0: none
		why  string
	}{
		{"nothing", nil, 0, ""},
		{"all", join(all...), 0, ""},
		{"the end is missing, which nobody can see", join(all[:3]...), 0, ""},
		{"the beginning is in an earlier file", join(all[2:]...), 0, ""},
		{"one is missing", join(all[0], all[1], all[3]), 3, "number 4 behind 2"},
		{"the first is there twice", join(all[0], all[0]), 2, "number 1 behind 1"},
		{"two are exchanged", join(all[0], all[2], all[1]), 2, "number 3 behind 1"},
		{"one is replaced", join(all[0], forged, all[2]), 2, "does not follow line number 1"},
		{"an empty line", join(all[0], []byte("\n"), all[1]), 2, "is no line"},
		{"a blank behind", join(all[0], []byte(" \n")), 2, "is no line"},
		{"CR LF", bytes.ReplaceAll(join(all[0]), []byte("\n"), []byte("\r\n")), 1, "prev and hash"},
		{"a torn end", join(all[0], all[1][:40]), 2, "has no end"},
		{"all but the line feed", join(all[0], all[1][:len(all[1])-1]), 2, "has no end"},
		{"a byte order mark", join([]byte("\ufeff"), all[0]), 1, "is no line"},
		{"too long", join(all[0], bytes.Repeat([]byte("x"), maxLine+1)), 2, "too long"},
		{"number 7 that begins a chain", far.append(nil, newEntry(Event{}, time.Time{})), 1, "does not have the number 1"},
		{"number 0", zero.append(nil, newEntry(Event{}, time.Time{})), 1, "does not have the number 1"},
		{"number 1 behind another", behind.append(nil, newEntry(Event{}, time.Time{})), 1, "names a line before it"},
		{"upper case", bytes.ToUpper(all[0]), 1, "is no line"},
		{"a leading zero", bytes.Replace(all[0], []byte(`"seq":1`), []byte(`"seq":01`), 1), 1, "has no number"},
		{"no number", bytes.Replace(all[0], []byte(`"seq":1`), []byte(`"seq":"1"`), 1), 1, "has no number"},
		{"something behind the hash", bytes.Replace(all[0], []byte("\"}\n"), []byte("\",\"x\":1}\n"), 1), 1, "prev and hash"},
		{"another program's log", []byte("{\"level\":\"info\"}\n"), 1, "is no line"},
	} {
		_, err := Verify(bytes.NewReader(c.text))
		var broken *Broken
		switch {
		case c.line == 0 && err != nil, c.line > 0 && !errors.As(err, &broken):
			t.Errorf("%s: %v", c.name, err)
		case c.line > 0 && (broken.Line != c.line || !strings.Contains(broken.Why, c.why)):
			t.Errorf("%s: %v, want line %d %s", c.name, err, c.line, c.why)
		}
	}
}

func TestWhatIsTooLongIsShortened(t *testing.T) {
	long := strings.Repeat("\x00ä", 4000)
	end := link{hash: first}
	for _, detail := range []map[string]any{
		nil, {"a": long}, {"a": func() {}}, {"a": strings.Repeat("x", maxDetail-8)},
	} {
		line := end.append(nil, newEntry(Event{long, long, long, netip.MustParseAddr("::1"), long, long, long, long, 1 << 30, long, detail}, time.Now()))
		if len(line) > maxLine {
			t.Errorf("%d bytes", len(line))
		}
		if _, wrong := parse(line[:len(line)-1]); wrong != "" {
			t.Error(wrong)
		}
	}
	if got := string(encodeDetail(map[string]any{"a": long})); !strings.HasPrefix(got, `{"omitted":"`) {
		t.Error(got)
	}
}

func TestKeysInTextsAreMasked(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"GET /users":                        "GET /users",
		"DELETE /v1/keys/slk_a1_S3_x":       "DELETE /v1/keys/slk_***",
		"/slk_a1_S3_x/rotate":               "/slk_***/rotate",
		"slk_":                              "slk_***",
		"no slr_abc, no slk_a_b-slk_c slk_": "no slr_***, no slk_***-slk_*** slk_***",
	} {
		e := newEntry(Event{Target: in, Reason: in}, time.Time{})
		if e.Target != want || e.Reason != want {
			t.Errorf("%q: %q, want %q", in, e.Target, want)
		}
	}
	if got := newEntry(Event{Target: strings.Repeat("slk_a/", 100_000)}, time.Time{}).Target; len(got) > 2*maxText {
		t.Errorf("%d bytes", len(got))
	}
}

func FuzzVerify(f *testing.F) {
	text := lines(f, 3)
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte("{\"seq\":1,\"prev\":\"\",\"hash\":\"\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := Verify(bytes.NewReader(text))
		if err == nil && n != bytes.Count(text, []byte("\n")) {
			t.Errorf("%d lines of %q", n, text)
		}
		// Whatever the end of a file is, opening it is an error or goes on in a chain.
		if len(text) > 0 {
			end, at, err := tail(bytes.NewReader(text), int64(len(text)))
			if err == nil && at > 0 {
				if _, wrong := parse(text[bytes.LastIndexByte(text[:at-1], '\n')+1 : at-1]); wrong != "" || at > int64(len(text)) {
					t.Errorf("the tail of %q is at %d %v: %s", text, at, end, wrong)
				}
			}
		}
	})
}

// A file that breaks off at any byte is opened, the rest is kept, and the chain
// goes on.
func TestATornEndIsMovedAway(t *testing.T) {
	text := lines(t, 3)
	lengths := []int{len(lines(t, 1)), len(lines(t, 2))}
	cuts := []int{lengths[1] + 1, lengths[1] + 4, lengths[1] + 8, lengths[1] + 100, len(text) - 1, 1, 8, 200, lengths[0] - 1, lengths[0] + 50}
	for i := range cuts {
		cut := cuts[i]
		dir := t.TempDir()
		path := filepath.Join(dir, "audit.jsonl")
		if err := os.WriteFile(path, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, n := range lengths {
			if cut > n {
				kept++
			}
		}
		l, err := Open(Options{File: path})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		commit(t, l, Event{Kind: "test"})
		shut(t, l)
		c := whole(t, path)
		want := []string{kindRepaired, kindStarted, "test", kindStopped}
		if kept == 0 {
			want = slices.Insert(want, 0, kindOpened)
		}
		got := written(t, path)
		equal(t, kinds(got[kept:]), want...)
		if c.Lines != kept+len(want) {
			t.Errorf("cut at %d: %d lines", cut, c.Lines)
		}
		start := 0
		if kept > 0 {
			start = lengths[kept-1]
		}
		torn, err := os.ReadFile(beside(path, "torn-", uint64(kept)+1))
		if err != nil || !bytes.Equal(torn, text[start:cut]) {
			t.Errorf("cut at %d: kept %q, %v", cut, torn, err)
		}
	}
}

func TestAPowerCutThatLeavesZeroesIsRepaired(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	text := lines(t, 2)
	if err := os.WriteFile(path, append(text, make([]byte, 5000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{File: path})
	if err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	if c := whole(t, path); c.Lines != 5 {
		t.Errorf("%d lines", c.Lines)
	}
}

// A name given by mistake must not cost what stands there.
func TestWhatIsNoAuditLogIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	text := lines(t, 2)
	for name, content := range map[string]string{
		"text":     "root:x:0:0:root:/root:/bin/bash\n",
		"short":    "x",
		"json":     "{\"level\":\"info\"}\n",
		"mixed":    string(text) + "root:x:0:0\n",
		"mixed2":   string(text) + "root",
		"large":    strings.Repeat("0123456789abcde\n", 200_000),
		"longline": strings.Repeat("x", 3<<20),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{File: path})
		if err == nil {
			shut(t, l)
			t.Errorf("%s: taken", name)
			continue
		}
		if got, _ := os.ReadFile(path); string(got) != content || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "name another") {
			t.Errorf("%s: %v, and %d bytes of %d", name, err, len(got), len(content))
		}
	}
	for _, path := range []string{"/dev/null", dir, filepath.Join(dir, "text", "audit.jsonl")} {
		if l, err := Open(Options{File: path}); err == nil {
			shut(t, l)
			t.Errorf("%s: taken", path)
		}
	}
}
