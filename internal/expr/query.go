package expr

import "github.com/sluice-gateway/sluice/internal/router"

// queryValue returns the decoded value of the first parameter with that decoded
// name, as the router reads it.
func (v *view) queryValue(name string) (string, bool) {
	raw, ok := router.QueryValue(v.x.Request.Query, name)
	if !ok {
		return "", false
	}
	return decode(raw), true
}

func (v *view) allQuery(m map[string]string) {
	query := v.x.Request.Query
	for {
		raw, value, rest, _, ok := router.CutQuery(query)
		if !ok {
			return
		}
		query = rest
		name := decode(raw)
		if _, ok := m[name]; !ok {
			m[name] = decode(value)
		}
	}
}

func decode(raw []byte) string { return string(router.DecodeQuery(nil, raw)) }
