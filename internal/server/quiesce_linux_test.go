package server_test

import (
	"net"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/server"
)

func TestANewConnectionIsDroppedWhileTheQueueIsKept(t *testing.T) {
	l, err := server.Bind("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	queued, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer queued.Close()
	if err := server.RefuseNew(l); err != nil {
		t.Fatal(err)
	}
	if c, err := net.DialTimeout("tcp", l.Addr().String(), 50*time.Millisecond); err == nil {
		c.Close()
		t.Error("a connection began")
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 2)
	_, _ = queued.Write([]byte("hi"))
	if _, err := c.Read(b); err != nil || string(b) != "hi" {
		t.Errorf("the one that waited: %q, %v", b, err)
	}
}
