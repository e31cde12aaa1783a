package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected diagnostics of testdata/bad")

// environment is the variables of all tests.
var environment = map[string]string{
	"SECRET":         "hunter2-hunter2",
	"EMPTY":          "",
	"PORT":           "9001",
	"S":              "client-secret",
	"INJECTION":      "info\nadmin: {pprof: true}",
	"JSON_INJECTION": `"}, admin: {pprof: true}, x: {"`,
}

func lookup(name string) (string, bool) {
	v, ok := environment[name]
	return v, ok
}

// now is the time of all tests.
var now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// testEnv reads from disk, but for files below a folder tls, which it makes up:
// api, other and old are certificates and keys, garbage is neither.
func testEnv() Env {
	return Env{
		Lookup: lookup,
		Now:    func() time.Time { return now },
		ReadFile: func(name string) ([]byte, error) {
			if filepath.Base(filepath.Dir(name)) == "tls" {
				if data, ok := madeUp()[filepath.Base(name)]; ok {
					return data, nil
				}
			}
			return os.ReadFile(name)
		},
	}
}

// madeUp makes the files once.
var madeUp = sync.OnceValue(func() map[string][]byte {
	files := map[string][]byte{"garbage": []byte("-----BEGIN NOTHING-----\n")}
	for name, until := range map[string]time.Time{
		"api": now.AddDate(1, 0, 0), "other": now.AddDate(1, 0, 0), "old": now.AddDate(0, 0, -1),
	} {
		files[name+".crt"], files[name+".key"] = certificate(name, until)
	}
	files["partners.pem"] = files["other.crt"]
	return files
})

// certificate makes a self-signed certificate and its key.
func certificate(name string, until time.Time) (cert, key []byte) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    until.AddDate(-2, 0, 0),
		NotAfter:     until,
		DNSNames:     []string{name + ".example.com"},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// listing are diagnostics, a line each.
func lines(ds Diagnostics) string {
	var b strings.Builder
	for _, d := range ds {
		b.WriteString(d.String() + "\n")
	}
	return b.String()
}

// Each testdata/bad/NAME.yaml has a mistake, NAME.want what is said of it.
func TestBadConfigurationsAreExplained(t *testing.T) {
	t.Chdir(filepath.Join("testdata", "bad"))
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("*.yaml")
	if err != nil || len(names) < 60 {
		t.Fatalf("%d cases (%v), want at least 60", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(name, ".yaml"), func(t *testing.T) {
			_, ds := Load(name, testEnv())
			if ds.Err() == nil {
				t.Error("there are no errors")
			}
			got := strings.ReplaceAll(lines(ds), dir, "DIR")
			for _, secret := range []string{"hunter2", "secret-value", "short-secret", "user:secret", "1234567890"} {
				if strings.Contains(got, secret) {
					t.Errorf("the secret %q is shown", secret)
				}
			}
			for _, d := range ds {
				checkDiagnostic(t, d)
			}
			golden := strings.TrimSuffix(name, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s\nIf this is right: go test ./internal/config -run Bad -update", got, want)
			}
		})
	}
}

// checkDiagnostic checks what holds for every diagnostic.
func checkDiagnostic(t *testing.T, d Diagnostic) {
	t.Helper()
	known := false
	for _, c := range codes {
		known = known || c[0] == d.Code
	}
	if !known {
		t.Errorf("the code %s is not in the manual", d.Code)
	}
	if d.Message == "" || strings.Contains(d.Message, "\n") || strings.Contains(d.Message, "%!") {
		t.Errorf("the message %q is not one line of text", d.Message)
	}
}

func TestGoodConfigurationsLoad(t *testing.T) {
	names, err := filepath.Glob(filepath.Join("testdata", "good", "*.yaml"))
	if err != nil || len(names) == 0 {
		t.Fatal("there are no cases")
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			_, ds := Load(name, testEnv())
			for _, d := range ds {
				if d.Code != "config.not_supported" || filepath.Base(name) != "contract.yaml" {
					t.Error(d)
				}
			}
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			formatted, err := Format(src)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := Format(formatted); err != nil || !bytes.Equal(again, formatted) {
				t.Errorf("formatting twice changes it (%v):\n%s\n%s", err, formatted, again)
			}
		})
	}
}
