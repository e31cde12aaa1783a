package httpsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// signer has private keys by kid; what it signs is what a client would.
type signer map[string]any

func newSigner(t testing.TB) signer {
	t.Helper()
	must := func(k any, err error) any {
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, edward, err := ed25519.GenerateKey(rand.Reader)
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	return signer{
		"p256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "p384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"rsa": must(rsa.GenerateKey(rand.Reader, 2048)), "ed": must(edward, err), "secret": secret,
	}
}

// jwks are the public halves; alg are the `alg` of some.
func (s signer) jwks(t testing.TB, alg map[string]string) []jose.Key {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	var set []map[string]string
	for id, k := range s {
		m := map[string]string{"kid": id}
		if alg[id] != "" {
			m["alg"] = alg[id]
		}
		switch k := k.(type) {
		case *ecdsa.PrivateKey:
			p, err := k.PublicKey.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			half := len(p) / 2
			m["kty"], m["crv"], m["x"], m["y"] = "EC", k.Params().Name, b64(p[1:1+half]), b64(p[1+half:])
		case *rsa.PrivateKey:
			m["kty"], m["n"], m["e"] = "RSA", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
		case ed25519.PrivateKey:
			m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(k.Public().(ed25519.PublicKey))
		case []byte:
			m["kty"], m["k"] = "oct", b64(k)
		}
		set = append(set, m)
	}
	text, err := json.Marshal(map[string]any{"keys": set})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jose.ParseKeys(text)
	if err != nil || len(keys) != len(s) {
		t.Fatalf("%d keys of %d: %v", len(keys), len(s), err)
	}
	return keys
}

// sign signs a base with a key.
func (s signer) sign(t testing.TB, id, algorithm, base string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(base))
	var out []byte
	var err error
	switch k := s[id].(type) {
	case *ecdsa.PrivateKey:
		digest := sum[:]
		if algorithm == ecP384 {
			long := sha512.Sum384([]byte(base))
			digest = long[:]
		}
		var r, v *big.Int
		if r, v, err = ecdsa.Sign(rand.Reader, k, digest); err == nil {
			half := (k.Params().BitSize + 7) / 8
			out = append(r.FillBytes(make([]byte, half)), v.FillBytes(make([]byte, half))...)
		}
	case *rsa.PrivateKey:
		if algorithm == rsaV15 {
			out, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
			break
		}
		long := sha512.Sum512([]byte(base))
		out, err = rsa.SignPSS(rand.Reader, k, crypto.SHA512, long[:], &rsa.PSSOptions{SaltLength: 64})
	case ed25519.PrivateKey:
		out = ed25519.Sign(k, []byte(base))
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(base))
		out = mac.Sum(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// signed is a request with a signature of what stands behind the label in input.
func (s signer) signed(t testing.TB, id, algorithm, input string) *Message {
	t.Helper()
	lines := []string{"Content-Digest: " + requestDigest, "Date: today"}
	base := baseOf(t, request("POST", "https://example.com/foo?a=1", append(lines, "Signature-Input: sig1="+input, "Signature: sig1=:AA==:")...))
	signature := base64.StdEncoding.EncodeToString(s.sign(t, id, algorithm, base))
	return request("POST", "https://example.com/foo?a=1", append(lines, "Signature-Input: sig1="+input, "Signature: sig1=:"+signature+":")...)
}

const signTime = 1_700_000_000

func TestEveryAlgorithm(t *testing.T) {
	s := newSigner(t)
	for _, c := range []struct{ id, algorithm, params, alg, want string }{
		{"p256", ecP256, "", "", ""},
		{"p256", ecP256, `;alg="ecdsa-p256-sha256"`, "ES256", ""},
		{"p384", ecP384, "", "", ""},
		{"p384", ecP384, `;alg="ecdsa-p384-sha384"`, "", ""},
		{"ed", edwards, "", "EdDSA", ""},
		{"ed", edwards, `;alg="ed25519"`, "", ""},
		{"secret", shared, "", "", ""},
		{"secret", shared, `;alg="hmac-sha256"`, "HS256", ""},
		{"rsa", rsaPSS, "", "PS512", ""},
		{"rsa", rsaPSS, `;alg="rsa-pss-sha512"`, "", ""},
		{"rsa", rsaV15, "", "RS256", ""},
		{"rsa", rsaV15, `;alg="rsa-v1_5-sha256"`, "", ""},
		{"rsa", rsaPSS, "", "", errAlgorithm.Error()},                            // nobody says which
		{"rsa", rsaPSS, `;alg="rsa-v1_5-sha256"`, "PS512", errAlgorithm.Error()}, // the key says otherwise
		{"rsa", rsaV15, "", "PS512", errWrong.Error()},                           // another padding
		{"rsa", rsaPSS, `;alg="rsa-v1_5-sha256"`, "", errWrong.Error()},          // another padding
		{"p256", ecP256, `;alg="ecdsa-p384-sha384"`, "", errAlgorithm.Error()},   // another curve
		{"p256", ecP256, `;alg="hmac-sha256"`, "", errAlgorithm.Error()},         // a public key as a secret
		{"ed", edwards, `;alg="hmac-sha256"`, "", errAlgorithm.Error()},          // a public key as a secret
		{"rsa", rsaPSS, `;alg="hmac-sha256"`, "", errAlgorithm.Error()},          // a public key as a secret
		{"secret", shared, `;alg="ed25519"`, "", errAlgorithm.Error()},           // a secret as a public key
		{"ed", edwards, `;alg="none"`, "", errAlgorithm.Error()},                 // none
		{"ed", edwards, `;alg=""`, "", "its alg is not of the right type"},       // nothing
		{"ed", edwards, `;alg=ed25519`, "", "its alg is not of the right type"},  // a token
		{"ed", edwards, `;alg="ED25519"`, "", errAlgorithm.Error()},              // another case
		{"secret", shared, `;alg="hmac-sha512"`, "", errAlgorithm.Error()},       // there is no such thing
	} {
		v, err := New(s.jwks(t, map[string]string{c.id: c.alg}), nil, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		m := s.signed(t, c.id, c.algorithm, fmt.Sprintf(`("@method" "@target-uri" "content-digest");created=%d;keyid="%s"%s`, signTime, c.id, c.params))
		r, err := v.Verify(m, signTime)
		if c.want != "" {
			if err == nil || err.Error() != "signature sig1: "+c.want {
				t.Errorf("%s%s of a key with %q: %v, want %s", c.algorithm, c.params, c.alg, err, c.want)
			}
			continue
		}
		if err != nil || r.Algorithm != c.algorithm || r.KeyID != c.id || len(r.Digests) != 1 {
			t.Errorf("%s%s: %+v, %v", c.algorithm, c.params, r, err)
		}
	}
}

func TestTimesAndParameters(t *testing.T) {
	s := newSigner(t)
	for _, c := range []struct {
		params string
		now    int64
		want   string
	}{
		{`;created=1700000000`, signTime, ""},
		{`;created=1700000000`, signTime + 60, ""},
		{`;created=1700000000`, signTime + 61, errOld.Error()},
		{`;created=1700000000`, signTime - 30, ""},
		{`;created=1700000000`, signTime - 31, errFuture.Error()},
		{`;created=1700000000;expires=1700000010`, signTime + 9, ""},
		{`;created=1700000000;expires=1700000010`, signTime + 10, errExpired.Error()},
		{`;created=1700000000;expires=1699999999`, signTime - 10, errExpired.Error()},
		{`;created=1700000000;expires=1700009999`, signTime + 61, errOld.Error()},
		{`;created=1700000000;nonce="a";tag="b";x=1;y`, signTime, ""},
		{``, signTime, "it has no created"},
		{`;expires=1700000010`, signTime, "it has no created"},
		{`;created="1700000000"`, signTime, "its created is not of the right type"},
		{`;created=1700000000.0`, signTime, "its created is not of the right type"},
		{`;created=@1700000000`, signTime, "its created is not of the right type"},
		{`;created=-1700000000`, signTime, "its created is not of the right type"},
		{`;created=0`, signTime, "its created is not of the right type"},
		{`;created`, signTime, "its created is not of the right type"},
		{`;created=999999999999999`, signTime, "its created is not of the right type"},
		{`;created=1700000000;expires=999999999999999`, signTime, "its expires is not of the right type"},
		{`;created=1700000000;expires=0`, signTime, "its expires is not of the right type"},
		{`;created=1700000000;nonce=1`, signTime, "its nonce is not of the right type"},
		{`;created=1700000000;tag=t`, signTime, "its tag is not of the right type"},
		{`;created=1700000000;keyid=ed`, signTime, "its keyid is not of the right type"},
		{`;created=1700000000;keyid=""`, signTime, "it has no keyid"},
		{`;created=1700000000;keyid="who"`, signTime, errUnknown.Error()},
	} {
		v, err := New(s.jwks(t, nil), []string{"@method"}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		params := c.params
		if !strings.Contains(params, "keyid") {
			params += `;keyid="ed"`
		}
		_, err = v.Verify(s.signed(t, "ed", edwards, `("@method")`+params), c.now)
		if got := strings.TrimPrefix(fmt.Sprint(err), "signature sig1: "); (c.want == "") != (err == nil) || err != nil && got != c.want {
			t.Errorf("%s at %d: %v, want %q", c.params, c.now, err, c.want)
		}
	}
}

func TestRequiredComponents(t *testing.T) {
	s := newSigner(t)
	for _, c := range []struct {
		required []string
		covered  string
		noBody   bool
		want     string
	}{
		{[]string{"@method", "@target-uri", "content-digest"}, `"content-digest" "@target-uri" "date" "@method"`, false, ""},
		{[]string{"@method", "@target-uri", "content-digest"}, `"@target-uri" "@method"`, false, `it does not cover "content-digest"`},
		{[]string{"@method", "@target-uri", "content-digest"}, `"@target-uri" "@method"`, true, ""},
		{[]string{"@method", "@target-uri", "content-digest"}, `"@authority" "@path" "@query" "@method"`, true, `it does not cover "@target-uri"`},
		{[]string{"@method"}, ``, true, `it does not cover "@method"`},
		{[]string{`@query-param;name="a"`}, `"@query-param";name="a"`, false, ""},
		{[]string{`"@query-param";name="a"`}, `"@query-param";name="a"`, false, ""},
		{[]string{`"@query-param";name="b"`}, `"@query-param";name="a"`, false, `it does not cover "@query-param";name="b"`},
		{[]string{`content-digest`}, `"content-digest";key="sha-512"`, false, `it does not cover "content-digest"`},
		{[]string{`content-digest;key="sha-512"`}, `"content-digest";key="sha-512"`, false, ""},
		{nil, `"content-digest";key="md5"`, false, "component \"content-digest\";key=\"md5\": the dictionary has no such member"},
	} {
		v, err := New(s.jwks(t, nil), c.required, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		m := s.signed(t, "ed", edwards, "("+c.covered+`);created=1700000000;keyid="ed"`)
		m.NoBody = c.noBody
		_, err = v.Verify(m, signTime)
		if got := strings.TrimPrefix(fmt.Sprint(err), "signature sig1: "); (c.want == "") != (err == nil) || err != nil && got != c.want {
			t.Errorf("%q by %s: %v, want %q", c.required, c.covered, err, c.want)
		}
	}
}

func TestDamagedSignatures(t *testing.T) {
	s := newSigner(t)
	v, err := New(s.jwks(t, map[string]string{"rsa": "PS512"}), []string{"@method"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ id, algorithm string }{{"p256", ecP256}, {"p384", ecP384}, {"ed", edwards}, {"secret", shared}, {"rsa", rsaPSS}} {
		input := fmt.Sprintf(`("@method");created=%d;keyid="%s"`, signTime, c.id)
		base := baseOf(t, request("POST", "https://example.com/", "Signature-Input: s="+input, "Signature: s=:AA==:"))
		good := s.sign(t, c.id, c.algorithm, base)
		try := func(signature []byte) error {
			_, err := v.Verify(request("POST", "https://example.com/", "Signature-Input: s="+input, "Signature: s=:"+base64.StdEncoding.EncodeToString(signature)+":"), signTime)
			return err
		}
		if err := try(good); err != nil {
			t.Errorf("%s: %v", c.algorithm, err)
		}
		half := len(good) / 2
		bad := [][]byte{
			{},
			{0},
			good[1:], good[:len(good)-1], append([]byte{0}, good...), append(good[:len(good):len(good)], 0), make([]byte, len(good)),
			append(make([]byte, half), good[half:]...), append(good[:half:half], make([]byte, half)...),
		}
		for i := 0; i < len(good); i += 7 {
			flipped := append([]byte(nil), good...)
			flipped[i] ^= 1 << (i % 8)
			bad = append(bad, flipped)
		}
		if k, ok := s[c.id].(*ecdsa.PrivateKey); ok {
			n := k.Params().N
			r, sv := new(big.Int).SetBytes(good[:half]), new(big.Int).SetBytes(good[half:])
			if over := new(big.Int).Add(r, n); (over.BitLen()+7)/8 <= half {
				bad = append(bad, append(over.FillBytes(make([]byte, half)), good[half:]...))
			}
			bad = append(bad, append(n.FillBytes(make([]byte, half)), good[half:]...), append(good[:half:half], n.FillBytes(make([]byte, half))...))
			// The second form of the same signature holds: what counts as used is the base.
			if err := try(append(good[:half:half], new(big.Int).Sub(n, sv).FillBytes(make([]byte, half))...)); err != nil {
				t.Errorf("%s: %v", c.algorithm, err)
			}
		}
		for _, signature := range bad {
			if err := try(signature); err == nil {
				t.Errorf("%s: holds damaged", c.algorithm)
			}
		}
	}
}

func TestFieldsThatAreWrong(t *testing.T) {
	s := newSigner(t)
	v, err := New(s.jwks(t, nil), []string{"@method"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	good := s.signed(t, "ed", edwards, `("@method");created=1700000000;keyid="ed"`)
	input, signature := string(good.Fields("signature-input")[0]), string(good.Fields("signature")[0])
	for _, c := range []struct {
		name             string
		input, signature []string
		ok               bool
	}{
		{"as it was", []string{input}, []string{signature}, true},
		{"another one that does not hold, first", []string{`sig0=("@method");created=1700000000;keyid="p256", ` + input}, []string{"sig0=:AA==:, " + signature}, true},
		{"in two fields", []string{`sig0=("@path");created=1700000000;keyid="ed"`, input}, []string{"sig0=:AA==:", signature}, true},
		{"another one without bytes", []string{input, `sig2=("@path");created=1`}, []string{signature}, true},
		{"no input", nil, []string{signature}, false},
		{"an empty input", []string{""}, []string{signature}, false},
		{"no signature", []string{input}, nil, false},
		{"another label", []string{strings.Replace(input, "sig1", "sig2", 1)}, []string{signature}, false},
		{"the list is an item", []string{`sig1="@method";created=1700000000;keyid="ed"`}, []string{signature}, false},
		{"the signature is a string", []string{input}, []string{`sig1="AA"`}, false},
		{"the signature is a list", []string{input}, []string{`sig1=(:AA==:)`}, false},
		{"the signature is no base64", []string{input}, []string{`sig1=:A!A=:`}, false},
		{"no dictionary", []string{"sig1=("}, []string{signature}, false},
		{"trailing comma", []string{input + ","}, []string{signature}, false},
		{"a component twice", []string{strings.Replace(input, `"@method"`, `"@method" "@method"`, 1)}, []string{signature}, false},
		{"a component that is a number", []string{strings.Replace(input, `"@method"`, `1`, 1)}, []string{signature}, false},
		{"the other method", []string{strings.Replace(input, `"@method"`, `"@path"`, 1)}, []string{signature}, false},
		{"too long", []string{input + strings.Repeat(" ", maxText)}, []string{signature}, false},
		{"too many", []string{strings.Repeat("a=(), ", 1) + `b=(), c=(), d=(), e=(), f=(), g=(), h=(), ` + input}, []string{signature}, false},
		{"too many components", []string{strings.Replace(input, `"@method"`, `"@method"`+strings.Repeat(` "a"`, maxComponents), 1)}, []string{signature}, false},
	} {
		var lines []string
		for _, l := range c.input {
			lines = append(lines, "Signature-Input: "+l)
		}
		for _, l := range c.signature {
			lines = append(lines, "Signature: "+l)
		}
		if c.name == "too long" { // request would trim it
			lines[0] = "Signature-Input: " + input + `, x="` + strings.Repeat("x", maxText) + `"`
		}
		if _, err := v.Verify(request("POST", "https://example.com/foo?a=1", lines...), signTime); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestContentDigests(t *testing.T) {
	sum256 := base64.StdEncoding.EncodeToString(make([]byte, 32))
	sum512 := base64.StdEncoding.EncodeToString(make([]byte, 64))
	for _, c := range []struct {
		field, covered string
		want           string // the algorithms, or ! the error
	}{
		{"sha-256=:" + sum256 + ":", `"content-digest"`, "sha-256"},
		{"sha-256=:" + sum256 + ":, sha-512=:" + sum512 + ":", `"content-digest"`, "sha-256 sha-512"},
		{"sha-256=:" + sum256 + ":, sha-512=:" + sum512 + ":", `"content-digest";key="sha-512"`, "sha-512"},
		{"sha-256=:" + sum256 + ":, sha-512=:" + sum512 + ":", `"content-digest";bs`, "sha-256 sha-512"},
		{"sha-256=:" + sum256 + ":, md5=:AA==:", `"content-digest"`, "sha-256"},
		{"md5=:AA==:", `"content-digest"`, "! " + errWeak.Error()},
		{"sha-256=:" + sum256 + ":, md5=:AA==:", `"content-digest";key="md5"`, "! " + errWeak.Error()},
		{"sha-256=:AA==:", `"content-digest"`, "! " + errDigest.Error()},
		{"sha-256=\"x\"", `"content-digest"`, "! " + errDigest.Error()},
		{"sha-256=(:AA==:)", `"content-digest"`, "! " + errDigest.Error()},
		{"sha-256", `"content-digest"`, "! " + errDigest.Error()},
		{"=", `"content-digest"`, "! " + errDigest.Error()},
		{"", `"content-digest"`, "! " + errWeak.Error()},
		{"sha-256=:" + sum256 + ":", `"@method"`, ""},
	} {
		m := request("POST", "https://example.com/", "Content-Digest: "+c.field)
		covered, err := parseRequired(c.covered)
		if err != nil {
			t.Fatal(err)
		}
		all, err := digests(m, []component{covered})
		if want, refused := strings.CutPrefix(c.want, "! "); refused {
			if fmt.Sprint(err) != want {
				t.Errorf("%s by %s: %v, want %s", c.field, c.covered, err, want)
			}
			continue
		}
		var names []string
		for i := range all {
			names = append(names, all[i].Algorithm)
			if all[i].New().Size() != len(all[i].Sum) {
				t.Errorf("%s: another hash", all[i].Algorithm)
			}
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s by %s: %q, %v", c.field, c.covered, got, err)
		}
	}
}

func TestKeysAndRequirementsThatAreWrong(t *testing.T) {
	s := newSigner(t)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		keys     []jose.Key
		required []string
		want     string
	}{
		{signer{"a": p521}.jwks(t, nil), nil, `the key "a" is on a curve that signatures do not know, take P-256, P-384 or Ed25519`},
		{signer{"rsa": s["rsa"]}.jwks(t, map[string]string{"rsa": "RS512"}), nil, `the key "rsa" has the alg "RS512", signatures know PS512, RS256, ES256, ES384, EdDSA and HS256`},
		{signer{"": s["ed"]}.jwks(t, nil), nil, `a key has no kid, which is who signs with it: give it one`},
		{nil, []string{"@status"}, `component "@status" is no derived component of a request`},
		{nil, []string{"Content-Digest"}, `component "Content-Digest" is no name of a field in lower case`},
		{nil, []string{"a;b=("}, `"a";b=( is no component, write it as @method, content-digest or @query-param;name="id"`},
	} {
		if _, err := New(c.keys, c.required, time.Minute); fmt.Sprint(err) != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	var many []jose.Key
	for range maxSameID + 1 {
		many = append(many, signer{"ed": s["ed"]}.jwks(t, nil)...)
	}
	if _, err := New(many, nil, time.Minute); err == nil {
		t.Error("any number of keys may have one kid")
	}
}

// A key is replaced while both are there, under one kid.
func TestTwoKeysOfOneID(t *testing.T) {
	old, next := newSigner(t), newSigner(t)
	keys := append(signer{"acme": old["ed"]}.jwks(t, nil), signer{"acme": next["p256"]}.jwks(t, nil)...)
	v, err := New(keys, nil, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		key       any
		algorithm string
	}{{old["ed"], edwards}, {next["p256"], ecP256}} {
		if _, err := v.Verify(signer{"acme": s.key}.signed(t, "acme", s.algorithm, `("@method");created=1700000000;keyid="acme"`), signTime); err != nil {
			t.Error(err)
		}
	}
	if _, err := v.Verify(signer{"acme": newSigner(t)["ed"]}.signed(t, "acme", edwards, `("@method");created=1700000000;keyid="acme"`), signTime); err == nil {
		t.Error("any key of the type holds")
	}
}

// Whatever the fields are, nothing holds but what the key signed.
func FuzzVerify(f *testing.F) {
	v, err := New(rfcKeys(f), nil, 100*365*24*time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b26Input, b26, "POST", "/foo?a=1", requestDigest)
	f.Add(b25Input, b25, "GET", "/foo", requestDigest)
	f.Add(b22Input, b22, "POST", "/foo?Pet=dog", requestDigest)
	f.Add(`a=("content-digest";key="sha-256" "x";sf "y";bs "@query-param";name="%");created=1;keyid="test-key-ed25519"`, "a=:AA==:", "GET", "/?%=%&+=%4", "a=(1 2);b")
	published := map[[sha256.Size]byte]bool{}
	for _, m := range []*Message{rfcRequest(b26Input, b26), rfcRequest(b25Input, b25), rfcRequest(b22Input, b22)} {
		published[sha256.Sum256([]byte(baseOf(f, m)))] = true
	}
	f.Fuzz(func(t *testing.T, input, signature, method, target, digest string) {
		m := request(method, "https://example.com"+target, "Date: Tue, 20 Apr 2021 02:07:55 GMT", "Content-Type: application/json", "Content-Length: 18",
			"Content-Digest: "+digest, "Signature-Input: "+input, "Signature: "+signature)
		if r, err := v.Verify(m, 1618884473); err == nil && !published[r.Base] {
			t.Errorf("%+v", r)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b)
	v, err := New(s.jwks(b, map[string]string{"rsa": "PS512"}), []string{"@method"}, time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ id, algorithm string }{{"p256", ecP256}, {"p384", ecP384}, {"ed", edwards}, {"secret", shared}, {"rsa", rsaPSS}} {
		b.Run(c.algorithm, func(b *testing.B) {
			m := s.signed(b, c.id, c.algorithm, fmt.Sprintf(`("@method" "@target-uri" "content-digest");created=%d;keyid="%s"`, signTime, c.id))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(m, signTime); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
