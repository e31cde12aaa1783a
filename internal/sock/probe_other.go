//go:build !linux

package sock

// probe needs nothing here.
type probe struct{}

func (*probe) init() {}

// Gone is false where the system cannot tell without reading: there a departed
// client is noticed when the response is written.
func (c *Conn) Gone() bool { return false }

// Quiet is true where the system cannot tell without reading.
func (c *Conn) Quiet() bool { return true }

// Ended is false where the system cannot tell without reading.
func (c *Conn) Ended() bool { return false }
