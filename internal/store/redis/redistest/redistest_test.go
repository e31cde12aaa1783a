package redistest

import "testing"

func TestServersAnswerAndComeBack(t *testing.T) {
	s := Start(t)
	s.Do("SET", "k", "v")
	if got := s.Do("GET", "k"); got != "v" {
		t.Fatalf("GET = %v", got)
	}
	s.Kill()
	if _, err := Do(s.Addr(), "PING"); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart()
	if got := s.Do("GET", "k"); got != nil {
		t.Fatalf("GET after a restart = %v", got)
	}
}

func TestSentinelsFailOver(t *testing.T) {
	s := StartSentinel(t)
	old := s.Master()
	s.Failover()
	if s.Master() == old {
		t.Fatal("the master stayed")
	}
}

func TestClusterMovesSlots(t *testing.T) {
	c := StartCluster(t)
	const key = "x"
	old := c.Owner(key)
	old.Do("SET", key, "v")
	c.MoveSlot(key)
	if now := c.Owner(key); now == old || now.Do("GET", key) != "v" {
		t.Fatal("the slot or its key did not move")
	}
}
