package ask

import (
	"context"
	"io"
	"net/http"
)

// Get asks a service and returns the status and the header of its answer. The body is
// read, so that the connection can be kept, and means nothing. The URL is not in errors.
func Get(ctx context.Context, c *http.Client, url string, header http.Header) (int, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, cause(err)
	}
	r.Header = header
	res, err := c.Do(r)
	if err != nil {
		return 0, nil, cause(err)
	}
	_, _ = io.Copy(io.Discard, res.Body) // one that is too long or breaks off costs the connection
	_ = res.Body.Close()
	return res.StatusCode, res.Header, nil
}
