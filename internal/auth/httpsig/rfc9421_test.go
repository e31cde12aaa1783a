package httpsig

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// The vectors of RFC 9421: keys of Appendix B.1 (testdata/rfc9421.jwks), requests and
// signatures of Appendix B.2 to B.4 and of sections 3.2 and 4.3.

func rfcKeys(t testing.TB) []jose.Key {
	t.Helper()
	data, err := os.ReadFile("testdata/rfc9421.jwks")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jose.ParseKeys(data)
	if err != nil || len(keys) != 5 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	return keys
}

// request makes a message of a URL and lines of fields.
func request(method, url string, lines ...string) *Message {
	m := &Message{Method: method}
	scheme, rest, _ := strings.Cut(url, "://")
	m.Scheme = scheme
	host, target := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host, target = rest[:i], rest[i:]
	}
	path, query, has := strings.Cut(target, "?")
	m.Authority, m.Path, m.Query, m.HasQuery = []byte(host), []byte(path), []byte(query), has
	m.Fields = func(name string) (values [][]byte) {
		for _, line := range lines {
			n, v, _ := strings.Cut(line, ":")
			if strings.EqualFold(n, name) {
				values = append(values, []byte(strings.TrimSpace(v)))
			}
		}
		return values
	}
	return m
}

// requestDigest is that of {"hello": "world"}.
const requestDigest = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"

func rfcRequest(input, signature string) *Message {
	return request("POST", "https://example.com/foo?param=Value&Pet=dog", "Host: example.com", "Date: Tue, 20 Apr 2021 02:07:55 GMT",
		"Content-Type: application/json", "Content-Digest: "+requestDigest, "Content-Length: 18", "Signature-Input: "+input, "Signature: "+signature)
}

const (
	b26Input = `sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`
	b26      = `sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:`
	b25Input = `sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`
	b25      = `sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:`
	b22Input = `sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`
	b22      = `sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:`

	transformInput = `transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519"`
	transform      = `transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:`

	proxyInput = `sig1=("@method" "@authority" "@path" "content-digest" "content-type" "content-length");created=1618884475;keyid="test-key-ecc-p256", ` +
		`proxy_sig=("@method" "@authority" "@path" "content-digest" "content-type" "content-length" "forwarded");created=1618884480;keyid="test-key-rsa";alg="rsa-v1_5-sha256";expires=1618884540`
	proxySig = `sig1=:X5spyd6CFnAG5QnDyHfqoSNICd+BUP4LYMz2Q0JXlb//4Ijpzp+kve2w4NIyqeAuM7jTDX+sNalzA8ESSaHD3A==:, ` +
		`proxy_sig=:S6ZzPXSdAMOPjN/6KXfXWNO/f7V6cHm7BXYUh3YD/fRad4BCaRZxP+JH+8XY1I6+8Cy+CM5g92iHgxtRPz+MjniOaYmdkDcnL9cCpXJleXsOckpURl49GwiyUpZ10KHgOEe11sx3G2gxI8S0jnxQB+Pu68U9vVcasqOWAEObtNKKZd8tSFu7LB5YAv0RAGhB8tmpv7sFnIm9y+7X5kXQfi8NMaZaA8i2ZHwpBdg7a6CMfwnnrtflzvZdXAsD3LH2TwevU+/PBPv0B6NMNk93wUs/vfJvye+YuI87HU38lZHowtznbLVdp770I6VHR6WfgS9ddzirrswsE1w5o0LV/g==:`
	clientCert = `:MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:`
)

func demo(method, url string, lines ...string) *Message {
	return request(method, url, append(lines, "Signature-Input: "+transformInput, "Signature: "+transform)...)
}

func proxied(url string) *Message {
	return request("POST", url, "Host: origin.host.internal.example", "Date: Tue, 20 Apr 2021 02:07:56 GMT", "Content-Type: application/json",
		"Content-Length: 18", "Forwarded: for=192.0.2.123;host=example.com;proto=https", "Content-Digest: "+requestDigest,
		"Signature-Input: "+proxyInput, "Signature: "+proxySig)
}

func TestVectorsOfRFC9421(t *testing.T) {
	for _, c := range []struct {
		name, label, algorithm string
		message                *Message
		now                    int64
		digests                int
	}{
		{
			"B.2.1 minimal rsa-pss-sha512", "sig-b21", rsaPSS, rfcRequest(
				`sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`,
				`sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:`),
			1618884473, 0,
		},
		{"B.2.2 selective rsa-pss-sha512", "sig-b22", rsaPSS, rfcRequest(b22Input, b22), 1618884473, 1},
		{
			"B.2.3 full rsa-pss-sha512", "sig-b23", rsaPSS, rfcRequest(
				`sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`,
				`sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:`),
			1618884473, 1,
		},
		{"B.2.5 hmac-sha256", "sig-b25", shared, rfcRequest(b25Input, b25), 1618884473, 0},
		{"B.2.6 ed25519", "sig-b26", edwards, rfcRequest(b26Input, b26), 1618884473, 0},
		{
			"3.2 rsa-pss-sha512", "sig1", rsaPSS, rfcRequest(
				`sig1=("@method" "@authority" "@path" "content-digest" "content-length" "content-type");created=1618884473;keyid="test-key-rsa-pss"`,
				`sig1=:HIbjHC5rS0BYaa9v4QfD4193TORw7u9edguPh0AW3dMq9WImrlFrCGUDih47vAxi4L2YRZ3XMJc1uOKk/J0ZmZ+wcta4nKIgBkKq0rM9hs3CQyxXGxHLMCy8uqK488o+9jrptQ+xFPHK7a9sRL1IXNaagCNN3ZxJsYapFj+JXbmaI5rtAdSfSvzPuBCh+ARHBmWuNo1UzVVdHXrl8ePL4cccqlazIJdC4QEjrF+Sn4IxBQzTZsL9y9TP5FsZYzHvDqbInkTNigBcE9cKOYNFCn4D/WM7F6TNuZO9EgtzepLWcjTymlHzK7aXq6Am6sfOrpIC49yXjj3ae6HRalVc/g==:`),
			1618884473, 1,
		},
		{"4.3 the proxy's rsa-v1_5-sha256", "proxy_sig", rsaV15, proxied("https://origin.host.internal.example/foo?param=Value&Pet=dog"), 1618884500, 1},
		{"4.3 the client's ecdsa-p256-sha256", "sig1", ecP256, proxied("https://example.com/foo?param=Value&Pet=dog"), 1618884500, 1},
		{"4.3 the client's, when the proxy's has expired", "sig1", ecP256, proxied("https://example.com/foo?param=Value&Pet=dog"), 1618884540, 1},
		{"B.3 a certificate", "ttrp", ecP256, request("POST", "https://service.internal.example/foo?param=Value&Pet=dog", "Client-Cert: "+clientCert,
			`Signature-Input: ttrp=("@path" "@query" "@method" "@authority" "client-cert");created=1618884473;keyid="test-key-ecc-p256"`,
			`Signature: ttrp=:xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==:`), 1618884473, 0},
		{"B.4 as it was", "transform", edwards, demo("GET", "https://example.org/demo?name1=Value1&Name2=value2", "Accept: application/json", "Accept: */*"), 1618884473, 0},
		{"B.4 a parameter and a field more", "transform", edwards, demo("GET", "https://example.org/demo?name1=Value1&Name2=value2&param=added",
			"Accept: application/json", "Accept: */*", "Accept-Language: en-US,en;q=0.5"), 1618884473, 0},
		{"B.4 two fields made one", "transform", edwards, demo("GET", "https://example.org/demo?name1=Value1&Name2=value2", "Accept: application/json, */*"), 1618884473, 0},
	} {
		v, err := New(rfcKeys(t), nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		r, err := v.Verify(c.message, c.now)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if r.Label != c.label || r.Algorithm != c.algorithm || len(r.Digests) != c.digests || r.Until != r.Created+3601 {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

// B.2.4 signs a response, which is nothing that a request can show: its base and key.
func TestECDSAVectorOfAResponse(t *testing.T) {
	base := "\"@status\": 200\n\"content-type\": application/json\n\"content-digest\": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n" +
		"\"content-length\": 23\n\"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\""
	signature, err := base64.StdEncoding.DecodeString("wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range rfcKeys(t) {
		if k.ID != "test-key-ecc-p256" {
			continue
		}
		made, err := newKey(&k)
		if err != nil || !made.verify(ecP256, []byte(base), signature) {
			t.Errorf("%v", err)
		}
		return
	}
	t.Error("no key")
}

func TestSignatureBasesOfRFC9421(t *testing.T) {
	for _, c := range []struct{ input, signature, want string }{
		{b26Input, b26, "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": POST\n\"@path\": /foo\n\"@authority\": example.com\n\"content-type\": application/json\n\"content-length\": 18\n" +
			`"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`},
		{b22Input, b22, "\"@authority\": example.com\n\"content-digest\": " + requestDigest + "\n\"@query-param\";name=\"Pet\": dog\n" +
			`"@signature-params": ("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`},
		{
			`a=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`, "a=:AA==:",
			`"@signature-params": ();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`,
		},
	} {
		if got := baseOf(t, rfcRequest(c.input, c.signature)); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
}
