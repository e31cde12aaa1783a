package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// asJSON writes a YAML document as one line of JSON.
func asJSON(t *testing.T, text string) string {
	t.Helper()
	root, _, err := parseYAML(text)
	if err != nil {
		return fmt.Sprintf("%d:%d %s", err.line, err.col, err.message)
	}
	if root == nil {
		return "nothing"
	}
	r := &resolver{src: &source{}, anchors: map[string]*node{}, report: func(d Diagnostic) { t.Error(d) }}
	out, e := json.Marshal((&decoder{src: &source{}}).free(r.resolve(root)))
	if e != nil {
		t.Fatal(e)
	}
	return string(out)
}

func TestYAMLIsReadAsTheSpecificationSays(t *testing.T) {
	for in, want := range map[string]string{
		// Blocks.
		"a: 1\nb: two":                           `{"a":1,"b":"two"}`,
		"a:\n  b:\n    c: 1\n  d: 2\n":           `{"a":{"b":{"c":1},"d":2}}`,
		"a:\n- x\n- y\nb: 1\n":                   `{"a":["x","y"],"b":1}`,
		"a:\n  - x\n  -\n    y: 1\n  -\n":        `{"a":["x",{"y":1},null]}`,
		"- - a\n  - b\n- - c\n":                  `[["a","b"],["c"]]`,
		"- a: 1\n  b: 2\n- c: 3\n":               `[{"a":1,"b":2},{"c":3}]`,
		"-   a: 1\n    b: 2\n":                   `[{"a":1,"b":2}]`,
		"a:\nb:\n":                               `{"a":null,"b":null}`,
		"a:   # c\n  b: 1 # d\n# e\n  c: 2\n":    `{"a":{"b":1,"c":2}}`,
		"---\na: 1\n...\n":                       `{"a":1}`,
		"--- # c\na: 1\n---\n# nothing\n":        `{"a":1}`,
		"# only\n":                               "nothing",
		"":                                       "nothing",
		"\n\n  \n":                               "nothing",
		"a:\n  \n\n  b: 1\n   \n":                `{"a":{"b":1}}`,
		"'a b': 1\n\"c\\n\": 2\n3: 4\ntrue: 5\n": `{"3":4,"a b":1,"c\n":2,"true":5}`,
		"a :  1\n":                               `{"a":1}`,
		"null: 1\n":                              `{"null":1}`,
		"a:\t1\n":                                `{"a":1}`,
		// Plain texts.
		"a: http://127.0.0.1:9001/x?y=1#z\n": `{"a":"http://127.0.0.1:9001/x?y=1#z"}`,
		"a: b c  # d\n":                      `{"a":"b c"}`,
		"a: b#c\n":                           `{"a":"b#c"}`,
		"a: :8080\nb: ::1\nc: -x\nd: ?x\n":   `{"a":":8080","b":"::1","c":"-x","d":"?x"}`,
		"a: [x]y\n":                          `1:7 stands behind a value that has ended: put the whole text in quotes, or begin a new line`,
		"a: x[0], {y} & *z\n":                `{"a":"x[0], {y} \u0026 *z"}`,
		"a: ${X:-y}\n":                       `{"a":"${X:-y}"}`,
		"a: x\n  y\n\n  z\n\n\n  w # c\n":    `{"a":"x y\nz\n\nw"}`,
		"a: x\n  - y\n":                      `{"a":"x - y"}`,
		"a:\n  x\n  y\nb: 1\n":               `{"a":"x y","b":1}`,
		"a: client.id == 1 || \"x\" in y\n":  `{"a":"client.id == 1 || \"x\" in y"}`,
		"x\ny\n":                             `"x y"`,
		"a: 1\nb: 1.5\nc: 1e3\nd: 0x1F\ne: 0o17\nf: -7\ng: +7\nh: 012\n": `{"a":1,"b":1.5,"c":1000,"d":31,"e":15,"f":-7,"g":7,"h":12}`,
		"a: 1_000\nb: 1.2.3\nc: 12:30\nd: 1.\ne: .5\nf: -\n":             `6:4 begins a list behind its key: begin it on a line of its own`,
		"a: ~\nb: null\nc: Null\nd: NULL\ne: nULL\n":                     `{"a":null,"b":null,"c":null,"d":null,"e":"nULL"}`,
		"a: true\nb: False\nc: yes\nd: on\n":                             `{"a":true,"b":false,"c":"yes","d":"on"}`,
		"a: 123456789012345678901234567890\n":                            `{"a":123456789012345678901234567890}`,
		// Quoted texts.
		`a: "x\ty\n\"\\\/\x41\u00e9\U0001F600\0\a\b\v\f\r\e\L\P\ "`: `{"a":"x\ty\n\"\\/Aé😀\u0000\u0007\b\u000b\f\r\u001b\u2028\u2029 "}`,
		`a: "\ud83d\ude00"`:             `{"a":"😀"}`,
		`a: "\N\_"`:                     "{\"a\":\"\u0085\u00a0\"}",
		"a: 'it''s'\nb: ''\nc: \"\"\n":  `{"a":"it's","b":"","c":""}`,
		"a: \"x\n  y\n\n  z  \n  w\"\n": `{"a":"x y\nz w"}`,
		"a: \"x \\\n   y\\\n\n  z\"\n":  `{"a":"x y\nz"}`,
		"a: 'x\n  y'\n":                 `{"a":"x y"}`,
		"a: \"# no: {comment\" # c\n":   `{"a":"# no: {comment"}`,
		"a: \"  x  \"\n":                `{"a":"  x  "}`,
		// Literal and folded texts.
		"a: |\n  x\n   y\n\n  z\nb: 1\n":     `{"a":"x\n y\n\nz\n","b":1}`,
		"a: |-\n  x\n\n\nb: >-\n  y\n\n":     `{"a":"x","b":"y"}`,
		"a: |+\n  x\n\n\nb: 1\n":             `{"a":"x\n\n\n","b":1}`,
		"a: >\n  x\n  y\n\n  z\n   w\n  v\n": `{"a":"x y\nz\n w\nv\n"}`,
		"a: >\n\n  x\n":                      `{"a":"\nx\n"}`,
		"a: |2\n    x\n   y\n":               `{"a":"  x\n y\n"}`,
		"a: |1-\n  x\n":                      `{"a":" x"}`,
		"- |\n x\n- >+\n y\n\n- |\n":         `["x\n","y\n\n",""]`,
		"a: | # c\n  # text\n # end\n":       `{"a":"# text\n"}`,
		"a: |\n  x":                          `{"a":"x"}`,
		"a: |\n  x\n ":                       `{"a":"x\n"}`,
		"a: |+\n\n\n":                        `{"a":"\n\n"}`,
		"a:\n  - |\n    x\n  - y\n":          `{"a":["x\n","y"]}`,
		"|\n x\n y\n":                        `"x\ny\n"`,
		"a: >\n  x\n    \n  y\n":             `{"a":"x\n  \ny\n"}`,
		// Flows.
		"{a: 1, \"b\":2, 'c' : [x, y,], d: {}, e: [], f, g: }": `{"a":1,"b":2,"c":["x","y"],"d":{},"e":[],"f":null,"g":null}`,
		"a: [x # c\n  , y\n]\nb: {\nc: 1\n}\n":                 `{"a":["x","y"],"b":{"c":1}}`,
		"a: {targets: [http://127.0.0.1:9001, 2001:db8::/32]}": `{"a":{"targets":["http://127.0.0.1:9001","2001:db8::/32"]}}`,
		"a: [::1, :8080, x:y, -z]":                             `{"a":["::1",":8080","x:y","-z"]}`,
		"a: [x: 1, \"y\":2, {z: 3}: 4]":                        `1:18 is not a key: write a name and a colon`,
		"a: [x: 1, \"y\":2]":                                   `{"a":[{"x":1},{"y":2}]}`,
		"a: [x\n  y, \"z\n  w\"]":                              `{"a":["x y","z w"]}`,
		"\t{\"a\":\t1}":                                        `1:1 is a tab where spaces belong: indent with spaces`,
		"{\"a\":\n\t1}":                                        `{"a":1}`,
		"a: {b: x, c: 'd'}  # e\n":                             `{"a":{"b":"x","c":"d"}}`,
		"a: {\"b\": \"c\"}\nd: [\"e\"]\n":                      `{"a":{"b":"c"},"d":["e"]}`,
		// Anchors, aliases, merges.
		"a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n":           `{"a":{"b":1},"c":{"b":1},"d":{"b":1,"e":2}}`,
		"a: &x\n  b: 1\nc:\n  <<: [*x, {b: 2, d: 3}]\n":      `{"a":{"b":1},"c":{"b":1,"d":3}}`,
		"a: &x\n  - 1\nb: &y z\nc: [*x, *y]\nd: &n\ne: *n\n": `{"a":[1],"b":"z","c":[[1],"z"],"d":null,"e":null}`,
		"- &a x\n- &a y\n- *a\n":                             `["x","y","y"]`,
		"a:\n  &x\n  b: 1\n":                                 `{"a":{"b":1}}`,
		"a: [&x 1, *x , &y , &z]\n":                          `{"a":[1,1,null,null]}`,
		"\"<<\": 1\n":                                        `{"\u003c\u003c":1}`,
		// What is wrong.
		"a: b: c\n":               `1:5 holds a colon and a space: put the text in quotes, or begin the block on a line of its own`,
		"a: 1\n b: 2\n":           `2:2 looks like a key within the text that begins on line 1: check its indentation, or put the text in quotes`,
		"a: \"1\"\n b: 2\n":       `2:2 is indented deeper than what it belongs to, which stands at column 1`,
		"a:\n  b: 1\n c: 2\n":     `3:2 is indented deeper than what it belongs to, which stands at column 1`,
		"a:\n    b: 1\n  c: 2\n":  `3:3 is indented deeper than what it belongs to, which stands at column 1`,
		"a: 1\nb\n":               `2:1 is not a key: write a name, a colon and a space`,
		"a: 1\n- b\n":             `2:1 is an item of a list among the keys of a block: check its indentation`,
		"- a\nb: 1\n":             `2:1 does not belong to what stands before it: check its indentation, or put the text in quotes`,
		"a: - b\n":                `1:4 begins a list behind its key: begin it on a line of its own`,
		"a: [x, y\n":              `1:4 bracket is never closed: add a ]`,
		"a: {x: y\nb: 1":          `2:2 is a colon behind a value: put the text in quotes, or a comma before its key`,
		"a: [x}\n":                `1:6 needs a comma or ] before it`,
		"a: [x, , y]\n":           `1:8 is a comma with nothing before it: remove it`,
		"a: [x \"y\"]\n":          "{\"a\":[\"x \\\"y\\\"\"]}",
		"a: [\"x\" y]\n":          `1:9 needs a comma or ] before it`,
		"a: {b: ${X}}\n":          "1:8 begins a variable within { }, where it needs quotes: write \"${NAME}\"",
		"a: [${X}]\n":             "1:5 begins a variable within [ ], where it needs quotes: write \"${NAME}\"",
		"a: {b: c: d}\n":          `1:9 is a colon behind a value: put the text in quotes, or a comma before its key`,
		"a: 'x\n":                 `1:4 quote is never closed: add a '`,
		"a: \"\\q\"\n":            `1:5 begins no escape that there is: write \\ for a backslash, or use single quotes`,
		"a: \"\\ud800\"\n":        `1:5 is not an escape of a character: write \x and 2, \u and 4 or \U and 8 hex digits`,
		"a: \"\\U00110000\"\n":    `1:5 is not an escape of a character: write \x and 2, \u and 4 or \U and 8 hex digits`,
		"a: \"\\x4\"\n":           `1:5 is not an escape of a character: write \x and 2, \u and 4 or \U and 8 hex digits`,
		"a: \"x\" y\n":            `1:8 stands behind a value that has ended: put the whole text in quotes, or begin a new line`,
		"a: \"x\"#y\n":            `1:7 is a # without a space before it: put one there for a comment, or the text in quotes`,
		"a: @x\n":                 "1:4 cannot begin a text with \"@\": put the text in quotes",
		"a: `x`\n":                "1:4 cannot begin a text with \"`\": put the text in quotes",
		"a: %x\n":                 "1:4 cannot begin a text with \"%\": put the text in quotes",
		"a: ,x\n":                 "1:4 cannot begin a text with \",\": put the text in quotes",
		"a: }\n":                  "1:4 cannot begin a text with \"}\": put the text in quotes",
		": x\n":                   "1:1 is a colon without a key before it",
		"a: *\n":                  `1:5 needs a name behind it, or quotes around the text`,
		"a: &\n":                  `1:5 needs a name behind it, or quotes around the text`,
		"a: &x:\n":                "1:6 cannot stand in the name of an anchor, which has letters, digits and _-. only: put the text in quotes",
		"a: *./x\n":               "1:6 cannot stand in the name of an anchor, which has letters, digits and _-. only: put the text in quotes",
		"a: [?x]\n":               "1:5 cannot begin a text with \"?\": put the text in quotes",
		"a: &x &y z\n":            `1:7 is a second anchor for one value: remove it`,
		"a: &x z\nb: &y *x\n":     `2:7 is an alias with an anchor of its own: remove one of them`,
		"a: &x b: 1\n":            `1:8 holds a colon and a space: put the text in quotes, or begin the block on a line of its own`,
		"&x a: 1\n":               `1:5 holds a colon and a space: put the text in quotes, or begin the block on a line of its own`,
		"*x : 1\n":                `1:4 would make a key of what stands before it: keys are names`,
		"[a]: 1\n":                `1:4 would make a key of what stands before it: keys are names`,
		"a: !!str x\n":            `1:4 is a YAML tag, which has no use here: remove it, or put the text in quotes`,
		"? a\n: b\n":              `1:1 begins a key that is not a single value, which has no use here: write a name and a colon`,
		"\"a\n  b\": 1\n":         `1:1 is a key over several lines: write it on one`,
		"%YAML 1.2\n---\na: 1\n":  `1:1 is a YAML directive, which has no use here: remove the line`,
		"a: 1\n---\nb: 2\n":       `3:1 begins a second document: one file holds one, remove the --- or move it to a file of its own`,
		"--- a\n":                 `1:5 stands behind the mark of a document: put it on a line of its own`,
		"a:\n\tb: 1\n":            `2:1 is a tab where spaces belong: indent with spaces`,
		"a:\n \tb: 1\n":           `2:2 is a tab where spaces belong: indent with spaces`,
		"-\ta: 1\n":               `1:4 holds a colon and a space: put the text in quotes, or begin the block on a line of its own`,
		"a: |x\n":                 `1:5 does not belong behind | or >: the text begins on the next line`,
		"a: |\n    \n  x\n":       `3:1 is indented less than the blank lines before it: take their spaces away`,
		"a: |\n  x\n y\n":         `3:2 is indented deeper than what it belongs to, which stands at column 1`,
		strings.Repeat("[", 100):  `1:64 is nested deeper than 64 levels`,
		strings.Repeat("- ", 100): `1:128 is nested deeper than 64 levels`,
	} {
		if got := asJSON(t, in); got != want {
			t.Errorf("%q:\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestPlacesCountCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"ü: é\n":                      "1:1 1:4",
		"a:\n  - x: \"ö\"\n":          "1:1 2:3 2:5 2:5 2:8",
		"a: [é, {ß: x}]\n":            "1:1 1:4 1:5 1:8 1:9 1:12",
		"a: |\n  x\nb:\n- c\n":        "1:1 1:4 3:1 4:1 4:3",
		"\"日本\": 1\n# c\n'é' : [1]\n": "1:1 1:7 3:1 3:7 3:8",
	} {
		root, _, err := parseYAML(in)
		if err != nil {
			t.Errorf("%q: %v", in, err.message)
			continue
		}
		var got []string
		var visit func(*node)
		visit = func(n *node) {
			got = append(got, fmt.Sprintf("%d:%d", n.line, n.col))
			for _, e := range n.entries {
				got = append(got, fmt.Sprintf("%d:%d", e.key.line, e.key.col))
				if len(e.value.entries) == 0 || e.value.flow {
					visit(e.value)
				} else {
					for _, inner := range e.value.entries {
						visit(inner.value)
					}
				}
			}
			for _, item := range n.items {
				visit(item)
			}
		}
		visit(root)
		// The root begins where its first key does.
		if text := strings.Join(got[1:], " "); text != want {
			t.Errorf("%q: %s, want %s", in, text, want)
		}
	}
}

func TestCommentsAreFoundWhereTheyStand(t *testing.T) {
	text := "# one\na: x # two  \n  # three\nb: \"# no\" #four\nc: [1, # five\n 2] # six\nd: | # seven\n  # no\n # eight\n#\n"
	_, comments, err := parseYAML(text)
	if err != nil {
		t.Fatal(err.message)
	}
	var got strings.Builder
	for _, c := range comments {
		fmt.Fprintf(&got, "%d:%d%s|", c.line, c.col, c.text)
	}
	if want := "1:1 one|2:6 two|3:3 three|4:11four|5:8 five|6:5 six|7:6 seven|9:2 eight|10:1|"; got.String() != want {
		t.Errorf("got  %s\nwant %s", got.String(), want)
	}
}

// Shapes on which a parser may take more than linear time, 256 KiB of each. A
// parser that does takes hours with some of them.
func TestHostileShapesTakeLinearTime(t *testing.T) {
	const size = 256 << 10
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	var deep, keys strings.Builder
	for i := range 700 {
		deep.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	for i := range size / 10 {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
	}
	for name, text := range map[string]string{
		"a long text":          "a: " + fill("x "),
		"a long quoted text":   "a: \"" + fill("x\\n") + "\"",
		"many quoted quotes":   "a: '" + fill("''") + "'",
		"a text of many lines": "a: x\n" + fill("  y\n"),
		"blanks in quotes":     "a: \"" + fill("\n") + "\"",
		"a literal text":       "a: |\n" + fill("  y\n"),
		"a blank literal text": "a: |\n" + fill("\n"),
		"a folded text":        "a: >\n" + fill("  y\n\n"),
		"comments":             fill("# x\n") + "a: 1\n",
		"comments behind":      "a:\n" + fill("- x # y\n"),
		"comments in brackets": "a: [\n" + fill("x, # c\n") + "]",
		"a long list":          "a:\n" + fill("- x\n"),
		"an empty list":        "a:\n" + fill("-\n"),
		"a flow":               "a: [" + fill("x,") + "]",
		"a flow of flows":      "a: [" + fill("{x: y},") + "]",
		"colons":               "a: {b: [" + fill("a:b,") + "]}",
		"blank lines":          fill("\n") + "a: 1",
		"spaces":               "a:" + fill(" ") + "1",
		"keys":                 keys.String(),
		"the same key":         fill("abcdefgh: 1\n"),
		"dashes":               fill("- "),
		"brackets":             fill("["),
		"depth":                deep.String(),
		"marks":                fill("---\n"),
		"anchors":              "a:\n" + fill("- &a x\n"),
		"an open bracket":      "a: [" + fill("x,"),
		"an open quote":        "a: \"" + fill("x\n"),
		"references":           "a: \"" + fill("${X}") + "\"",
		"broken references":    "a: \"" + fill("${") + "\"",
		"bad routes":           "routes:\n" + fill("- path: x\n"),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			Parse("hostile.yaml", []byte(text), noFiles())
			if _, err := Format([]byte(text)); err == nil {
				if _, err := Mask([]byte(text)); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
