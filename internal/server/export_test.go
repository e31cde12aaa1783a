package server

import "time"

// NewTimed is New with shorter times: how often the sweeper looks, how long a
// drain lets connections idle, and how long a client may be slow.
func NewTimed(h Handler, o Options, tick, quiet, grace time.Duration) *Server {
	return newServer(h, o, timing{tick: tick, quiet: quiet, grace: grace})
}

// Bind and RefuseNew are what a listener begins and ends with.
var (
	Bind      = bind
	RefuseNew = refuseNew
)
