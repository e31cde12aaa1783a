package ask

import (
	"fmt"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// object reads data as one JSON object, as strictly as tokens are read: of a member that
// is there twice the reader could take one and whoever wrote it mean the other. Numbers
// are json.Number.
func object(data []byte) (map[string]any, error) {
	o, err := jose.ParseObject(data)
	if err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	return o, nil
}
