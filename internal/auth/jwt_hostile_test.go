package auth

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// hostile is a token that must be refused, and a part of why. The reason shows that it
// is refused for what the case is about.
type hostile struct{ name, token, want string }

// missing is why a token is refused that has not even the form of one of the issuer's.
const missing = "no credential"

// parts cuts a good token.
func parts(t testing.TB, key, alg string) (header, claims, signature string) {
	t.Helper()
	p := strings.Split(tokenFor(t, key, alg, ``), ".")
	return p[0], p[1], p[2]
}

// hostileForms are tokens that are not written as they must be.
func hostileForms(t testing.TB) []hostile {
	h, c, s := parts(t, "rsa", "RS256")
	good := h + "." + c + "." + s
	std := strings.NewReplacer("-", "+", "_", "/")
	long := tokenFor(t, "rsa", "RS256", `"pad":"`+strings.Repeat("x", 12<<10)+`"`)
	trailing := func(part string) string { // the same bytes, with other bits behind them
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		i := strings.IndexByte(alphabet, part[len(part)-1])
		return part[:len(part)-1] + alphabet[i|1:i|1+1]
	}
	_, _, es := parts(t, "p256", "ES256")
	eh, ec := b64(headerOf("ES256", "p256", "")), b64(claimsOf(t, ``))
	return []hostile{
		{"one part", h, missing},
		{"two parts", h + "." + c, missing},
		{"four parts", good + ".e30", missing},
		{"five parts, as JWE has", good + ".e30.e30", missing},
		{"empty header", "." + c + "." + s, missing},
		{"empty payload", h + ".." + s, missing},
		{"empty signature", h + "." + c + ".", missing},
		{"dots alone", "..", missing},
		{"a dot behind it", good + ".", missing},
		{"a dot before it", "." + good, missing},
		{"longer than 16 KiB", long, missing},
		{"padding behind the header", h + "=." + c + "." + s, "base64url"},
		{"padding behind the payload", h + "." + c + "==." + s, missing},
		{"padding behind the signature", good + "==", "base64url"},
		{"standard base64 in the signature", h + "." + c + "." + std.Replace(s) + "+", "base64url"},
		{"a line end within the signature", h + "." + c + "." + s[:10] + "\n" + s[10:], "base64url"},
		{"a line end within the header", h[:10] + "\r\n" + h[10:] + "." + c + "." + s, "base64url"},
		{"a space within the payload", h + "." + c[:10] + " " + c[10:] + "." + s, missing},
		{"percent-encoding in the payload", h + "." + c[:10] + "%41" + c[10:] + "." + s, missing},
		{"a signature of one letter", h + "." + c + ".A", "base64url"},
		{"bits behind the end of the signature", h + "." + c + "." + trailing(s), "base64url"},
		{"a signature cut short", h + "." + c + "." + s[:len(s)-6], "signature"},
		{"a signature with more behind it", good + "AAAA", "signature"},
		{"a signature of zeros", h + "." + c + "." + b64(strings.Repeat("\x00", 256)), "signature"},
		{"a signature of ones", h + "." + c + "." + b64(strings.Repeat("\xff", 256)), "signature"},
		{"another's signature", eh + "." + ec + "." + es[:len(es)-8] + "AAAAAAAA", "signature"},
		{"payload changed", h + "." + b64(claimsOf(t, `"sub":"root"`)) + "." + s, "signature"},
		{"header changed", b64(headerOf("RS256", "rsa", `,"typ":"JWT"`)) + "." + c + "." + s, "signature"},
		{"JSON serialisation", `{"payload":"` + c + `","protected":"` + h + `","signature":"` + s + `"}`, missing},
		{"two tokens in one field", good + ", Bearer " + good, missing},
	}
}

// hostileJSON are tokens of which header or claims are JSON that can be read in more
// than one way, or are none.
func hostileJSON(t testing.TB) []hostile {
	rsa := tokenKeys()["rsa"]
	head := headerOf("RS256", "rsa", "")
	claims := claimsOf(t, ``)
	h := func(name, header, want string) hostile {
		return hostile{"header: " + name, rsa.signed("RS256", header, claims), want}
	}
	c := func(name, claims, want string) hostile {
		return hostile{"claims: " + name, rsa.signed("RS256", head, claims), want}
	}
	more := func(members string) string { return strings.TrimSuffix(claims, "}") + "," + members + "}" }
	return []hostile{
		h("empty object", `{}`, "alg"),
		h("no JSON", `alg=RS256`, "no object"),
		h("a list", `["RS256"]`, "no object"),
		h("null", `null`, "no object"),
		h("alg twice", `{"alg":"RS256","kid":"rsa","alg":"RS256"}`, "twice"),
		h("alg twice, once with an escape", `{"alg":"RS256","kid":"rsa","\u0061lg":"none"}`, "twice"),
		h("kid twice", `{"alg":"RS256","kid":"rsa","kid":"rsa"}`, "twice"),
		h("a member twice, deeper", `{"alg":"RS256","kid":"rsa","x":{"a":1,"a":1}}`, "twice"),
		h("a comma too many", `{"alg":"RS256","kid":"rsa",}`, "syntax"),
		h("a comment", `{"alg":"RS256",/**/"kid":"rsa"}`, "syntax"),
		h("something behind it", head+"{}", "behind"),
		h("a byte-order mark", "\ufeff"+head, "no object"),
		h("a zero byte behind it", head+"\x00", "behind"),
		h("not UTF-8", `{"alg":"RS256","kid":"rsa","x":"`+"\xff"+`"}`, "UTF-8"),
		h("half a surrogate pair", `{"alg":"RS256","kid":"rsa","x":"\ud800"}`, "surrogate"),
		h("nested", `{"alg":"RS256","kid":"rsa","x":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)+`}`, "deeper"),
		h("alg is a list", `{"alg":["RS256"],"kid":"rsa"}`, "not as it must be"),
		h("alg is null", `{"alg":null,"kid":"rsa"}`, "not as it must be"),
		h("kid is a number", `{"alg":"RS256","kid":1}`, "not as it must be"),
		h("kid is an object", `{"alg":"RS256","kid":{"$ne":null}}`, "not as it must be"),
		h("kid is too long", headerOf("RS256", strings.Repeat("k", 257), ""), "not as it must be"),
		h("typ is a list", headerOf("RS256", "rsa", `,"typ":["JWT"]`), "not as it must be"),
		h("a token within a token", headerOf("RS256", "rsa", `,"cty":"JWT"`), "not as it must be"),
		h("Alg instead of alg", `{"Alg":"RS256","kid":"rsa"}`, "alg"),
		c("empty object", `{}`, missing),
		c("no JSON", `sub=acme`, missing),
		c("a list", `[`+claims+`]`, missing),
		c("a text", `"acme"`, missing),
		c("a member twice", more(`"x":1,"x":1`), missing),
		c("sub twice", more(`"sub":"root"`), missing),
		c("exp twice", more(`"exp":4000000000`), missing),
		c("aud twice, once with an escape", more(`"\u0061ud":"api"`), missing),
		c("a member twice, deeper", more(`"x":[{"a":1,"a":2}]`), missing),
		c("nested", more(`"x":`+strings.Repeat(`{"x":`, 20)+"1"+strings.Repeat("}", 20)), missing),
		c("cut short", claims[:len(claims)-1], missing),
		c("something behind it", claims+claims, missing),
		c("not UTF-8", more(`"x":"`+"\xc3\x28"+`"`), missing),
		c("half a surrogate pair", more(`"x":"\udfff"`), missing),
		c("a number that overflows", more(`"x":1e400`), missing),
		c("NaN", more(`"x":NaN`), missing),
		c("a control character", more(`"x":"`+"\x01"+`"`), missing),
	}
}

// hostileHeaders are tokens with parameters that choose the key, or that ask for more
// than is understood, and those of other algorithms.
func hostileHeaders(t testing.TB) []hostile {
	keys := tokenKeys()
	claims := claimsOf(t, ``)
	good := keys["rsa"]
	h := func(name, more, want string) hostile {
		return hostile{name, good.signed("RS256", headerOf("RS256", "rsa", more), claims), want}
	}
	evil := func(name, more, want string) hostile {
		return hostile{name, keys["evil-rsa"].signed("RS256", headerOf("RS256", "rsa", more), claims), want}
	}
	alg := func(name, key, alg, kid, want string) hostile {
		return hostile{name, keys[key].signed(alg, headerOf(alg, kid, ""), claims), want}
	}
	unsigned := func(name string) hostile {
		return hostile{"alg " + name, b64(`{"alg":"`+name+`","kid":"rsa"}`) + "." + b64(claims) + "." + b64("x"), "is not one of"}
	}
	spelled := func(name string) hostile {
		return hostile{"alg " + name, good.signed("RS256", headerOf(name, "rsa", ""), claims), "is not one of"}
	}
	public := good.private.(*rsa.PrivateKey).PublicKey
	der, _ := x509.MarshalPKIXPublicKey(&public)
	pkcs1 := x509.MarshalPKCS1PublicKey(&public)
	confused := func(name string, secret []byte, alg string) hostile {
		return hostile{"the public key as a secret: " + name, tokenKey{"rsa", secret}.signed(alg, headerOf(alg, "rsa", ""), claims), "is not one of"}
	}
	jwk := keys["evil-rsa"].publicJWK(t, "")
	return []hostile{
		evil("signed by a stranger", "", "signature"),
		evil("with the stranger's jwk", `,"jwk":`+jwk, "jwk is not accepted"),
		h("with its own jwk", `,"jwk":`+good.publicJWK(t, ""), "jwk is not accepted"),
		evil("with a jku", `,"jku":"https://evil.example/jwks"`, "jku is not accepted"),
		h("with a jku of the issuer", `,"jku":"https://idp.example/jwks"`, "jku is not accepted"),
		evil("with an x5u", `,"x5u":"https://evil.example/cert"`, "x5u is not accepted"),
		evil("with an x5c", `,"x5c":["MIIB"]`, "signature"),
		h("crit with nothing in it", `,"crit":[]`, "crit is not accepted"),
		h("crit of what is not there", `,"crit":["exp"]`, "crit is not accepted"),
		h("crit of an extension", `,"crit":["x"],"x":1`, "crit is not accepted"),
		h("crit of a registered parameter", `,"crit":["alg"]`, "crit is not accepted"),
		h("crit is null", `,"crit":null`, "crit is not accepted"),
		h("b64 false", `,"b64":false,"crit":["b64"]`, "not accepted"),
		h("b64 false without crit", `,"b64":false`, "b64 is not accepted"),
		h("b64 true", `,"b64":true`, "b64 is not accepted"),
		h("zip", `,"zip":"DEF"`, "zip is not accepted"),
		h("enc", `,"enc":"A256GCM"`, "enc is not accepted"),
		unsigned("none"), unsigned("None"), unsigned("NONE"), unsigned("nOnE"), unsigned(""),
		spelled("rs256"), spelled("RS256 "), spelled("RSA256"), spelled("RS1"), spelled("RS257"), spelled("ES256K"), spelled("Ed25519"), spelled("HS256"),
		{"alg none and no signature", b64(`{"alg":"none"}`) + "." + b64(claims) + ".", missing},
		confused("PEM", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "HS256"),
		confused("PEM without its last line end", []byte(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))), "HS256"),
		confused("DER", der, "HS256"),
		confused("PKCS #1", pkcs1, "HS384"),
		confused("modulus", public.N.Bytes(), "HS512"),
		confused("JWK", []byte(good.publicJWK(t, "")), "HS256"),
		confused("nothing", nil, "HS256"),
		alg("kid of nobody", "rsa", "RS256", "nobody", "no key fits"),
		alg("kid with a path", "rsa", "RS256", "../../dev/null", "no key fits"),
		alg("kid with SQL", "rsa", "RS256", "' or '1'='1", "no key fits"),
		alg("kid of another key of the same type", "p256", "ES256", "p384", "no key fits"),
		alg("kid of a key of another type", "rsa", "RS256", "p256", "no key fits"),
		alg("kid of a key of Ed25519", "rsa", "PS256", "ed", "no key fits"),
		alg("a stranger's key of P-256", "evil-p256", "ES256", "p256", "signature"),
		alg("a stranger's key of Ed25519", "evil-ed", "EdDSA", "ed", "signature"),
		alg("a stranger's key and no kid", "evil-rsa", "RS256", "", "signature"),
		alg("RS256 said to be RS512", "rsa", "RS512", "p521", "no key fits"),
		{"RS256 said to be PS256", good.signed("RS256", headerOf("PS256", "rsa", ""), claims), "signature"},
		{"PS256 said to be RS256", good.signed("PS256", headerOf("RS256", "rsa", ""), claims), "signature"},
		{"RS256 said to be RS384", good.signed("RS256", headerOf("RS384", "rsa", ""), claims), "signature"},
		{"ES256 with a key of P-384", keys["p384"].signed("ES256", headerOf("ES256", "p384", ""), claims), "no key fits"},
		{"ES512 with a key of P-256", keys["p256"].signed("ES512", headerOf("ES512", "p256", ""), claims), "no key fits"},
		{"ES384 with the kid of P-521", keys["p384"].signed("ES384", headerOf("ES384", "p521", ""), claims), "no key fits"},
		{"EdDSA with a key of P-256", keys["p256"].signed("ES256", headerOf("EdDSA", "p256", ""), claims), "no key fits"},
	}
}

// hostilePairs are ECDSA signatures of odd numbers, and such of other curves.
func hostilePairs(t testing.TB) []hostile {
	key := tokenKeys()["p256"]
	private := key.private.(*ecdsa.PrivateKey)
	n := private.Curve.Params().N
	input := b64(headerOf("ES256", "p256", "")) + "." + b64(claimsOf(t, ``))
	good := key.signature("ES256", input)
	r, s := new(big.Int).SetBytes(good[:32]), new(big.Int).SetBytes(good[32:])
	zero, one := new(big.Int), big.NewInt(1)
	of := func(name string, signature []byte) hostile {
		return hostile{"ECDSA " + name, input + "." + base64.RawURLEncoding.EncodeToString(signature), "signature"}
	}
	two := func(name string, r, s *big.Int) hostile { return of(name, pair(private.Curve, r, s)) }
	asn1, err := ecdsa.SignASN1(nil, private, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	list := []hostile{
		two("r = 0, s = 0", zero, zero), two("r = 0", zero, s), two("s = 0", r, zero), two("r = 1, s = 1", one, one),
		two("r = n, s = n", n, n), two("r = n", n, s), two("s = n", r, n), two("r = n - 1, s = 1", new(big.Int).Sub(n, one), one),
		two("r and s changed over", s, r), two("r of another", new(big.Int).Xor(r, one), s),
		of("in ASN.1", asn1), of("of one half", good[:32]), of("without its last byte", good[:63]), of("with a byte before it", append([]byte{0}, good...)),
		of("with a byte behind it", append(good[:64:64], 0)), of("of 96 bytes", append(make([]byte, 32), good...)), of("with longer halves", pair(tokenKeys()["p384"].private.(*ecdsa.PrivateKey).Curve, r, s)),
		of("of ones", []byte(strings.Repeat("\xff", 64))), of("of P-521's size", make([]byte, 132)), of("of nothing but r", append(good[:32:32], make([]byte, 32)...)),
	}
	if sum := new(big.Int).Add(r, n); sum.BitLen() <= 256 {
		list = append(list, two("r + n", sum, s))
	}
	ed := tokenKeys()["ed"]
	edInput := b64(headerOf("EdDSA", "ed", "")) + "." + b64(claimsOf(t, ``))
	sig := ed.signature("EdDSA", edInput)
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	big25519 := func(d *big.Int) string { // S + d, little endian
		le := sig[32:]
		v := new(big.Int)
		for i := len(le) - 1; i >= 0; i-- {
			v.Or(v.Lsh(v, 8), big.NewInt(int64(le[i])))
		}
		out := make([]byte, 32)
		v.Add(v, d).FillBytes(out)
		for i := range 16 {
			out[i], out[31-i] = out[31-i], out[i]
		}
		return b64(string(sig[:32]) + string(out))
	}
	return append(list,
		hostile{"EdDSA S + L", edInput + "." + big25519(order), "signature"},
		hostile{"EdDSA S + 1", edInput + "." + big25519(one), "signature"},
		hostile{"EdDSA of zeros", edInput + "." + b64(strings.Repeat("\x00", 64)), "signature"},
		hostile{"EdDSA of 63 bytes", edInput + "." + b64(string(sig[:63])), "signature"},
		hostile{"EdDSA of 65 bytes", edInput + "." + b64(string(sig)+"\x00"), "signature"},
	)
}

// hostileClaims are tokens that are signed well and say what must not be accepted.
func hostileClaims(t testing.TB) []hostile {
	c := func(name, changes, want string) hostile {
		return hostile{name, tokenFor(t, "rsa", "RS256", changes), want}
	}
	at := func(claim string, seconds int64) string { return fmt.Sprintf(`"%s":%d`, claim, noon.Unix()+seconds) }
	raw := func(name, claims, want string) hostile {
		return hostile{name, tokenKeys()["rsa"].signed("RS256", headerOf("RS256", "rsa", ""), claims), want}
	}
	return []hostile{
		c("expired, at the end of the leeway", at("exp", -30), "expired"),
		c("expired for a day", at("exp", -86400), "expired"),
		c("no exp", `"exp":null`, "no exp"),
		c("exp as text", `"exp":"4000000000"`, "exp is no number"),
		c("exp is negative", `"exp":-1`, "exp is no number"),
		c("exp is 0", `"exp":0`, "expired"),
		c("exp in milliseconds", at("exp", 0)+"000", "exp is no number"),
		c("exp beyond 64 bits", `"exp":18446744073709551617`, "exp is no number"),
		c("exp beyond all", `"exp":1e300`, "exp is no number"),
		c("exp is a list", `"exp":[4000000000]`, "exp is no number"),
		c("exp is true", `"exp":true`, "exp is no number"),
		raw("exp is null", `{"iss":"`+testIssuer+`","sub":"acme","aud":"api","exp":null}`, "exp is no number"),
		c("a moment too early", at("nbf", 31), "does not hold before"),
		c("a part of a second too early", fmt.Sprintf(`"nbf":%d.5`, noon.Unix()+30), "does not hold before"),
		c("nbf as text", `"nbf":"0"`, "nbf is no number"),
		c("nbf beyond all", `"nbf":1e300`, "nbf is no number"),
		c("issued in the future", at("iat", 31), "issued in the future"),
		c("iat as text", `"iat":"0"`, "iat is no number"),
		c("iat is negative", `"iat":-1e300`, "iat is no number"),
		c("no iss", `"iss":null`, missing),
		c("another issuer", `"iss":"https://evil.example"`, missing),
		c("the issuer with a slash", `"iss":"`+testIssuer+`/"`, missing),
		c("the issuer in capitals", `"iss":"HTTPS://IDP.EXAMPLE"`, missing),
		c("the issuer with a space", `"iss":"`+testIssuer+` "`, missing),
		c("the issuer in a list", `"iss":["`+testIssuer+`"]`, missing),
		c("no aud", `"aud":null`, "aud has none"),
		c("another aud", `"aud":"other"`, "aud has none"),
		c("aud in capitals", `"aud":"API"`, "aud has none"),
		c("aud that begins alike", `"aud":"api2"`, "aud has none"),
		c("an empty list of aud", `"aud":[]`, "aud has none"),
		c("aud has a number", `"aud":["api",1]`, "aud is no string"),
		c("aud is an object", `"aud":{"api":true}`, "aud is no string"),
		c("aud is a text of several", `"aud":"api other"`, "aud has none"),
		c("sub is a number", `"sub":1`, "sub is no string"),
		c("sub is an object", `"sub":{"id":"acme"}`, "sub is no string"),
		c("sub with a zero byte", `"sub":"acme\u0000"`, "no id of a client"),
		c("jti is a number", `"jti":1`, "jti is no string"),
		c("bound to a key", `"cnf":{"jkt":"abc"}`, "cnf"),
		c("bound to a key that it brings", `"cnf":{"jwk":{}}`, "cnf"),
		c("bound to a certificate that is none", `"cnf":{"x5t#S256":"abc"}`, "cnf"),
		c("bound to more than a certificate", `"cnf":{"x5t#S256":"`+b64(strings.Repeat("x", 32))+`","jkt":"abc"}`, "cnf"),
		c("bound to nothing", `"cnf":{}`, "cnf"),
		c("cnf as text", `"cnf":"x"`, "cnf"),
		c("bound to a certificate, and there is none", `"cnf":{"x5t#S256":"`+b64(strings.Repeat("x", 32))+`"}`, "bound to a client certificate"),
	}
}

// Every hostile token is refused with the answer that a request without one gets.
func TestHostileTokensAreRefusedAlike(t *testing.T) {
	_, f := tokensOf(t, Options{}, usual(), []string{"idp"})
	want := exchange.AsError(f.Request(&exchange.Exchange{Conn: &exchange.Conn{}, Start: noon}))
	n := 0
	for _, list := range [][]hostile{hostileForms(t), hostileJSON(t), hostileHeaders(t), hostilePairs(t), hostileClaims(t)} {
		for _, c := range list {
			n++
			for range 2 { // what was refused is refused again
				x := withBearer(c.token)
				err := f.Request(x)
				if err == nil {
					t.Errorf("%s: it is accepted for %s", c.name, x.Caller.ID)
					continue
				}
				got := exchange.AsError(err)
				if got.Code != want.Code || got.Detail != want.Detail || !reflect.DeepEqual(got.Header, want.Header) {
					t.Errorf("%s: the answer is %+v", c.name, got)
				}
				if !strings.Contains(got.Cause.Error(), c.want) {
					t.Errorf("%s: refused because %v, want %s", c.name, got.Cause, c.want)
				}
				if len(c.token) > 40 && strings.Contains(got.Cause.Error(), c.token[len(c.token)-40:]) {
					t.Errorf("%s: the token is in the log: %v", c.name, got.Cause)
				}
			}
		}
	}
	if n < 120 {
		t.Errorf("there are %d hostile tokens, and should be 120 and more", n)
	}
	t.Logf("%d hostile tokens", n)
}

// What differs from a hostile token by the least is accepted.
func TestGoodTokensPass(t *testing.T) {
	typed := jwtOf(config.JWTAuth{Issuer: "https://typed", Keys: []string{"keys.json"}, Types: []string{"at+jwt"}})
	shared := jwtOf(config.JWTAuth{Issuer: "https://shared", Secret: config.NewSecret(sharedSecret), Algorithms: []string{"HS256", "HS384", "HS512"}})
	_, f := tokensOf(t, Options{}, map[string]*config.Authenticator{"idp": usual()["idp"], "typed": typed, "shared": shared}, []string{"idp"}, []string{"typed"}, []string{"shared"})
	keys := tokenKeys()
	at := func(claim string, seconds int64) string { return fmt.Sprintf(`"%s":%d`, claim, noon.Unix()+seconds) }
	c := func(changes string) string { return tokenFor(t, "rsa", "RS256", changes) }
	h := func(key, alg, kid, more, changes string) string {
		return keys[key].signed(alg, headerOf(alg, kid, more), claimsOf(t, changes))
	}
	good := map[string]string{
		"plain": c(``), "one second before its end": c(at("exp", -29)), "part of a second before its end": c(fmt.Sprintf(`"exp":%d.5`, noon.Unix()-30)),
		"as early as may be": c(at("nbf", 30)), "issued as late as may be": c(at("iat", 30)), "no nbf and iat": c(`"nbf":null,"iat":null`),
		"the last year there is": c(`"exp":253402300799`), "a list of aud": c(`"aud":["other","api"]`), "a big number elsewhere": c(`"x":18446744073709551617`),
		"15 deep": c(`"x":` + strings.Repeat("[", 15) + strings.Repeat("]", 15)), "a name twice in different objects": c(`"x":{"a":1},"y":{"a":1}`),
		"text in many letters": c(`"name":"Zoë 😀 \u00e9\ud83d\ude00"`), "without a kid": h("rsa", "RS256", "", "", ``), "with a typ": h("rsa", "RS256", "rsa", `,"typ":"JWT"`, ``),
		"with an x5t": h("rsa", "RS256", "rsa", `,"x5t":"abc"`, ``), "with an unknown parameter": h("rsa", "RS256", "rsa", `,"nonce":"abc"`, ``),
		"at+jwt":                   h("ed", "EdDSA", "ed", `,"typ":"at+jwt"`, `"iss":"https://typed"`),
		"application/at+jwt":       h("ed", "EdDSA", "ed", `,"typ":"application/at+jwt"`, `"iss":"https://typed"`),
		"AT+JWT":                   h("ed", "EdDSA", "ed", `,"typ":"AT+JWT"`, `"iss":"https://typed"`),
		"white space in its JSON":  keys["rsa"].signed("RS256", " {\r\n\"alg\" : \"RS256\" , \"kid\":\"rsa\"\t}", claimsOf(t, ``)+"\n"),
		"a token of almost 16 KiB": c(`"pad":"` + strings.Repeat("x", 11<<10) + `"`),
	}
	for alg, key := range map[string]string{"RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "PS384": "rsa", "PS512": "rsa", "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed"} {
		good[alg] = tokenFor(t, key, alg, ``)
	}
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		good[alg] = tokenFor(t, "secret", alg, `"iss":"https://shared"`)
	}
	for name, token := range good {
		if err := f.Request(withBearer(token)); err != nil {
			t.Errorf("%s: %v", name, exchange.AsError(err).Cause)
		}
	}
	for name, token := range map[string]string{
		"no typ":              h("ed", "EdDSA", "ed", ``, `"iss":"https://typed"`),
		"JWT":                 h("ed", "EdDSA", "ed", `,"typ":"JWT"`, `"iss":"https://typed"`),
		"logout+jwt":          h("ed", "EdDSA", "ed", `,"typ":"logout+jwt"`, `"iss":"https://typed"`),
		"a longer media type": h("ed", "EdDSA", "ed", `,"typ":"application/x/at+jwt"`, `"iss":"https://typed"`),
		"another secret":      tokenKey{"", []byte(strings.ToUpper(sharedSecret))}.signed("HS256", headerOf("HS256", "", ""), claimsOf(t, `"iss":"https://shared"`)),
		"a part of the mac":   tokenFor(t, "secret", "HS256", `"iss":"https://shared"`)[:len(tokenFor(t, "secret", "HS256", `"iss":"https://shared"`))-4],
		"RS256 for a secret":  tokenFor(t, "rsa", "RS256", `"iss":"https://shared"`),
	} {
		if err := f.Request(withBearer(token)); err == nil || exchange.AsError(err).Code != exchange.Unauthenticated {
			t.Errorf("%s: %v, want a 401", name, err)
		}
	}
}
