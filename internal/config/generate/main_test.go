package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const stale = "%s is stale, write it again with: go generate ./internal/config"

func TestCommentsAreThoseOfTheSource(t *testing.T) {
	want, err := commentsOf("..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("..", commentsFile))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf(stale, "internal/config/"+commentsFile)
	}
}

func TestReferenceIsThatOfTheTypes(t *testing.T) {
	got, err := os.ReadFile(filepath.Join("..", referenceFile))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, config.Reference()) {
		t.Errorf(stale, "docs/config.md")
	}
}

func TestRunRefusesWhatItCannotWrite(t *testing.T) {
	for _, args := range [][]string{nil, {"everything"}, {"comments", "reference"}} {
		if err := run(args); err == nil {
			t.Errorf("run(%q) = nil, want an error", args)
		}
	}
}
