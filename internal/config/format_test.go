package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each testdata/format/NAME.yaml has NAME.want as its canonical form.
func TestFormatWritesTheCanonicalForm(t *testing.T) {
	names, err := filepath.Glob(filepath.Join("testdata", "format", "*.yaml"))
	if err != nil || len(names) == 0 {
		t.Fatal("there are no cases")
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Format(src)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(name, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s\nIf this is right: go test ./internal/config -run Canonical -update", got, want)
			}
			again, err := Format(got)
			if err != nil || string(again) != string(got) {
				t.Errorf("formatting twice (%v) gives:\n%s", err, again)
			}
		})
	}
}

func TestFormatSaysWhereADocumentIsBroken(t *testing.T) {
	_, err := Format([]byte("routes: [\n  - x\n"))
	if err == nil || !strings.Contains(err.Error(), "config:2:3: ") {
		t.Errorf("%v", err)
	}
	if _, err = Format([]byte("a: 1\na: 2\n")); err == nil || !strings.Contains(err.Error(), "config:2:1: a: ") {
		t.Errorf("%v", err)
	}
}

func TestFormatOfNothingIsNothing(t *testing.T) {
	for in, want := range map[string]string{"": "", "\n\n": "", "# c": "# c\n", "{}": "{}\n", "---\n": "", "--- # c\n{}\n": "# c\n{}\n"} {
		if got, err := Format([]byte(in)); err != nil || string(got) != want {
			t.Errorf("Format(%q) = %q (%v), want %q", in, got, err, want)
		}
	}
}
