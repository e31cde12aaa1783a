//go:build linux && !race

package sock

import (
	"syscall"
	"unsafe"
)

// A call on a socket that never blocks takes a few microseconds, most of them in
// the network stack. The runtime's usual entry into the kernel prepares for one
// that lasts: after 20 µs it gives the processor to another thread, which then
// has to be woken, and to be waited for on the way back. On a busy gateway that
// happens thousands of times a second, so the plain entry is used, as for the
// clock. What may take longer goes the usual way: more than rawMost bytes.
//
// Under the race detector the usual entry is kept, since it tells the detector
// what is written.

// rawMost bounds what is copied without telling the scheduler.
const rawMost = 64 << 10

func read(fd int, p []byte) (int, error) {
	if len(p) == 0 || len(p) > rawMost {
		return syscall.Read(fd, p)
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func write(fd int, p []byte) (int, error) {
	if len(p) == 0 || len(p) > rawMost {
		return syscall.Write(fd, p)
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
