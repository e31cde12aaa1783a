package redistest

import "syscall"

// withParent has a server end with the test's process, also when that is killed.
func withParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
