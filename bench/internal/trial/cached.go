//go:build linux

package trial

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// That an answer came from a cache shows in two ways: the origin gives each of its
// answers to the cached route another serial, and it counts what it is asked for.
const (
	serialField = "X-Serial"
	countPath   = "/count"
)

// strays is the part of the requests that may reach the origin in a window in which
// everything is in the cache: caches that fetch again before something expires do so.
const strays = 0.001

// asked reads from the origin how many requests it has had, this one included.
func asked(addr string) (uint64, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + countPath)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return parseCount(resp.Body)
}

// parseCount reads the requests from nginx's stub_status: the third number of the line
// under the one that names them.
func parseCount(r io.Reader) (uint64, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "server accepts handled requests") || !lines.Scan() {
			continue
		}
		if numbers := strings.Fields(lines.Text()); len(numbers) == 3 {
			return strconv.ParseUint(numbers[2], 10, 64)
		}
	}
	return 0, fmt.Errorf("the origin does not say how many requests it had (%v)", lines.Err())
}

// allCached is an error when of n answers more than strays were the origin's.
func (s *subject) allCached(before, after reading) error {
	n := after.count.OK - before.count.OK
	if own := after.asked - before.asked; s.cached && own > 1 && float64(own-1) > strays*float64(n) {
		return fmt.Errorf("%d of %d requests reached the origin; all were to come from the cache", own-1, n)
	}
	return nil
}
