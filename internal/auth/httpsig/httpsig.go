// Package httpsig verifies HTTP message signatures of requests (RFC 9421) with keys
// that are known beforehand, and reads the Content-Digest (RFC 9530) that one covers.
//
// A signature covers components: derived ones such as @method, and fields. Both sides
// write their values into the signature base, a text of one line for each, and what is
// signed is that text:
//
//	"@method": POST
//	"@authority": example.com
//	"content-digest": sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:
//	"@signature-params": ("@method" "@authority" "content-digest");created=1618884473;keyid="acme"
//
// A request may have several signatures. One that holds, and covers all that is
// required, is enough; which others there are does not matter.
//
// Everything that might be read in two ways is refused: a component that is listed
// twice or not there, a query parameter that occurs twice, text that is not ASCII, and
// parameters of components that are not understood. So are those about a response
// (`req`) and about trailer fields (`tr`), which come too late.
//
// The algorithm is that of the key, never one that the signature alone chooses.
package httpsig

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// The bounds of what is looked at.
const (
	maxText       = 16 << 10 // bytes of Signature-Input, and of Signature
	maxSignatures = 4        // in one request
	maxComponents = 32       // that one covers
	maxSameID     = 4        // keys of one id, so that a key can be replaced
	// skew is how many seconds the signer's clock may be ahead.
	skew = 30
)

// Message is a request as the signer saw it. Nothing of it is changed or kept.
type Message struct {
	Method    string
	Scheme    string // http or https
	Authority []byte // host[:port] as received
	Target    []byte // request-target as received; empty: path and query
	Path      []byte // as received, before the first '?'
	Query     []byte // behind it
	HasQuery  bool
	// Fields returns the values of all fields of a name, which is in lower case.
	Fields func(name string) [][]byte
	// NoBody says that there is no body, so that there need be no digest of it.
	NoBody bool
}

// Verifier verifies the signatures of requests. It is not changed any more, and safe
// for use by many goroutines.
type Verifier struct {
	keys     map[string][]key
	required []component
	maxAge   int64 // s
}

// Result is a signature that holds.
type Result struct {
	Label      string
	KeyID      string
	Created    int64 // Unix s
	Until      int64 // Unix s: from then on it is refused for its age
	Nonce, Tag string
	Algorithm  string            // as RFC 9421 §6.2 names it
	Base       [sha256.Size]byte // SHA-256 of the signature base: what may be used once
	Digests    []Digest          // of the body, those that it covers; none: it says nothing of the body
	// Others are the other signatures of the request that hold. They are used up together
	// with this one: none of them may come again by itself.
	Others []*Result
}

// New makes a verifier of keys, each with an id; several may have the same. required
// are the components that a signature must cover, as RFC 9421 writes them, with or
// without the quotes around the name.
func New(keys []jose.Key, required []string, maxAge time.Duration) (*Verifier, error) {
	v := &Verifier{keys: map[string][]key{}, maxAge: int64(maxAge / time.Second)}
	for i := range keys {
		k, err := newKey(&keys[i])
		if err != nil {
			return nil, err
		}
		id := keys[i].ID
		if v.keys[id] = append(v.keys[id], k); len(v.keys[id]) > maxSameID {
			return nil, fmt.Errorf("more than %d keys have the kid %q", maxSameID, id)
		}
	}
	for _, text := range required {
		c, err := parseRequired(text)
		if err != nil {
			return nil, err
		}
		v.required = append(v.required, c)
	}
	return v, nil
}

// KeyIDs are the ids of all keys, sorted.
func (v *Verifier) KeyIDs() []string {
	ids := make([]string, 0, len(v.keys))
	for id := range v.keys {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

var (
	errLong      = fmt.Errorf("the fields Signature-Input or Signature are longer than %d bytes", maxText)
	errNone      = errors.New("there is no Signature-Input")
	errMany      = fmt.Errorf("there are more than %d signatures", maxSignatures)
	errWrong     = errors.New("the signature is not that of the key")
	errUnknown   = errors.New("its keyid is not known")
	errAlgorithm = errors.New("its alg does not fit its key, or neither names one")
	errFuture    = errors.New("it was created in the future")
	errOld       = errors.New("it is too old")
	errExpired   = errors.New("it has expired")
)

// Verify returns the first signature that holds at now, Unix s. The error says what
// is wrong with each. Whether one was used before is for the caller to say.
func (v *Verifier) Verify(m *Message, now int64) (*Result, error) {
	inputs, signatures, err := fields(m)
	if err != nil {
		return nil, err
	}
	names := inputs.Names()
	switch {
	case len(names) == 0:
		return nil, errNone
	case len(names) > maxSignatures:
		return nil, errMany
	}
	var failed []error
	var first *Result
	for _, label := range names {
		r, err := v.one(m, label, inputs, signatures, now)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("signature %s: %w", label, err))
		case first == nil:
			first = r
		default:
			first.Others = append(first.Others, r)
		}
	}
	if first == nil {
		return nil, errors.Join(failed...)
	}
	return first, nil
}

// fields reads the two fields, which are dictionaries with the same labels.
func fields(m *Message) (inputs, signatures *httpsfv.Dictionary, err error) {
	if inputs, err = dictionary(m, "signature-input"); err != nil {
		return nil, nil, err
	}
	signatures, err = dictionary(m, "signature")
	return inputs, signatures, err
}

func dictionary(m *Message, name string) (*httpsfv.Dictionary, error) {
	values, n := texts(m.Fields(name))
	if n > maxText {
		return nil, errLong
	}
	d, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return nil, fmt.Errorf("%s is no dictionary: %w", name, err)
	}
	return d, nil
}

// texts are values as strings, and how long they are together.
func texts(values [][]byte) (all []string, n int) {
	for _, v := range values {
		all = append(all, string(v))
		n += len(v)
	}
	return all, n
}

// one verifies one signature: what is cheap to see first.
func (v *Verifier) one(m *Message, label string, inputs, signatures *httpsfv.Dictionary, now int64) (*Result, error) {
	input, _ := inputs.Get(label)
	list, ok := input.(httpsfv.InnerList)
	if !ok || len(list.Items) > maxComponents {
		return nil, fmt.Errorf("Signature-Input has no list of at most %d components for it", maxComponents)
	}
	other, _ := signatures.Get(label)
	item, _ := other.(httpsfv.Item)
	signature, ok := item.Value.([]byte)
	if !ok {
		return nil, errors.New("there are no bytes for it in Signature")
	}
	p, err := parameters(list.Params)
	if err != nil {
		return nil, err
	}
	if err := v.inTime(p, now); err != nil {
		return nil, err
	}
	keys := v.keys[p.keyID]
	if len(keys) == 0 {
		return nil, errUnknown
	}
	covered, err := components(list.Items)
	if err != nil {
		return nil, err
	}
	if err := v.covers(covered, m.NoBody); err != nil {
		return nil, err
	}
	base, err := signatureBase(m, covered, list)
	if err != nil {
		return nil, err
	}
	algorithm, err := verify(keys, p.algorithm, []byte(base), signature)
	if err != nil {
		return nil, err
	}
	r := &Result{
		Label: label, KeyID: p.keyID, Created: p.created, Until: p.created + v.maxAge + 1, Nonce: p.nonce, Tag: p.tag,
		Algorithm: algorithm, Base: sha256.Sum256([]byte(base)),
	}
	r.Digests, err = digests(m, covered)
	return r, err
}

// verify tries the keys of one id.
func verify(keys []key, asked string, base, signature []byte) (algorithm string, err error) {
	err = errAlgorithm
	for i := range keys {
		k := &keys[i]
		name := k.algorithm
		if name == "" {
			name = asked
		}
		if asked != "" && name != asked || !k.suits(name) {
			continue
		}
		if k.verify(name, base, signature) {
			return name, nil
		}
		err = errWrong
	}
	return "", err
}

// inTime compares the times of a signature with now.
func (v *Verifier) inTime(p *params, now int64) error {
	switch {
	case p.created > now+skew:
		return errFuture
	case now-p.created > v.maxAge:
		return errOld
	case p.expires != 0 && (now >= p.expires || p.expires < p.created):
		return errExpired
	}
	return nil
}

// covers reports which required component is not covered.
func (v *Verifier) covers(covered []component, noBody bool) error {
	for i := range v.required {
		c := &v.required[i]
		if slices.ContainsFunc(covered, func(o component) bool { return o.id == c.id }) || noBody && c.name == contentDigest {
			continue
		}
		return fmt.Errorf("it does not cover %s", c.id)
	}
	return nil
}

// params are the parameters of a signature (RFC 9421 §2.3).
type params struct {
	created, expires             int64 // Unix s; expires 0: none
	keyID, algorithm, nonce, tag string
}

// maxTime is the year 9999: no sum with another time overflows.
const maxTime = 253402300799

func parameters(list *httpsfv.Params) (*params, error) {
	p := &params{}
	for _, name := range list.Names() {
		value, _ := list.Get(name)
		var ok bool
		switch name {
		case "created":
			p.created, ok = value.(int64)
			ok = ok && p.created > 0 && p.created <= maxTime
		case "expires":
			p.expires, ok = value.(int64)
			ok = ok && p.expires > 0 && p.expires <= maxTime
		case "keyid":
			p.keyID, ok = value.(string)
		case "alg":
			p.algorithm, ok = value.(string)
			ok = ok && p.algorithm != ""
		case "nonce":
			p.nonce, ok = value.(string)
		case "tag":
			p.tag, ok = value.(string)
		default: // signed with the others, and of no meaning here
			ok = true
		}
		if !ok {
			return nil, fmt.Errorf("its %s is not of the right type", name)
		}
	}
	switch {
	case p.created == 0:
		return nil, errors.New("it has no created")
	case p.keyID == "":
		return nil, errors.New("it has no keyid")
	}
	return p, nil
}

// signatureBase is the text that is signed (RFC 9421 §2.5).
func signatureBase(m *Message, covered []component, list httpsfv.InnerList) (string, error) {
	var b strings.Builder
	for i := range covered {
		value, err := covered[i].value(m)
		if err != nil {
			return "", fmt.Errorf("component %s: %w", covered[i].id, err)
		}
		if !ascii(value) {
			return "", fmt.Errorf("component %s: its value is not ASCII, or has control characters: cover it with ;bs", covered[i].id)
		}
		b.WriteString(covered[i].id)
		b.WriteString(": ")
		b.WriteString(value)
		b.WriteByte('\n')
	}
	text, err := httpsfv.Marshal(list)
	if err != nil {
		return "", err
	}
	b.WriteString(`"@signature-params": `)
	b.WriteString(text)
	return b.String(), nil
}

// ascii reports whether s is ASCII text on one line; tabs are part of field values.
func ascii(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x7F || c < 0x20 && c != '\t' {
			return false
		}
	}
	return true
}
