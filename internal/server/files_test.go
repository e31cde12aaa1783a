package server_test

import (
	"os"
	"syscall"
	"testing"
)

func TestAcceptingSurvivesALackOfFiles(t *testing.T) {
	s, addr := start(t, newFake(nil), roomy())
	first := dial(t, addr)
	first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, first.response("GET").Status, 200)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}
	defer restore()
	// One more file: the client takes it, and the server has none. The limit is on
	// the number of a file, and the next one gets the lowest that is free.
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	short := syscall.Rlimit{Cur: uint64(null.Fd()) + 1, Max: was.Max}
	_ = null.Close()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &short); err != nil {
		t.Fatal(err)
	}
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n") // open connections do not care
	equal(t, first.response("GET").Status, 200)
	equal(t, s.Stats()[0].Accepted, 1)
	restore()
	equal(t, c.response("GET").Status, 200)
}

// openFiles is how many files the process may have open, 0 when it is unknown.
func openFiles() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int(min(l.Cur, 1<<30))
}
