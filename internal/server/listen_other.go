//go:build !linux

package server

import (
	"errors"
	"net"
	"syscall"
)

// inheritOptions does nothing where connections inherit nothing.
func inheritOptions(_, _ string, _ syscall.RawConn) error { return nil }

// refuseNew cannot be done where the system has no filters on sockets.
func refuseNew(*net.TCPListener) error { return errors.ErrUnsupported }
