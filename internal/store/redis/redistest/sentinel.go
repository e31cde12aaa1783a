package redistest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// MasterName is the name that the sentinels of StartSentinel know the master by.
const MasterName = "gate"

// Sentinel is a master with one replica, watched by three sentinels that take 500
// ms to call a server gone.
type Sentinel struct {
	t         testing.TB
	Nodes     []*Server // two; the first one is the master at the start
	Sentinels []*Server
}

// StartSentinel starts them and waits until the sentinels know each other and the
// replica is in step.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	s := &Sentinel{t: t}
	master := Start(t, "--repl-diskless-sync-delay", "0")
	replica := Start(t, "--replicaof", "127.0.0.1 "+master.Port(), "--repl-diskless-sync-delay", "0")
	s.Nodes = []*Server{master, replica}
	until(t, "the replica in step", func() bool { return replica.Do("ROLE").([]any)[3] == "connected" })
	for range 3 {
		s.Sentinels = append(s.Sentinels, s.startSentinel(master.Port()))
	}
	for _, w := range s.Sentinels {
		until(t, "sentinels that know each other and the replica", func() bool {
			others, err := Do(w.Addr(), "SENTINEL", "SENTINELS", MasterName)
			if err != nil || len(others.([]any)) != 2 {
				return false
			}
			replicas, err := Do(w.Addr(), "SENTINEL", "REPLICAS", MasterName)
			return err == nil && len(replicas.([]any)) == 1
		})
	}
	return s
}

// Addrs are the sentinels' addresses.
func (s *Sentinel) Addrs() []string { return addrs(s.Sentinels) }

// Master is the server that the sentinels call the master now.
func (s *Sentinel) Master() *Server {
	s.t.Helper()
	at := s.Sentinels[0].Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).([]any)
	for _, n := range s.Nodes {
		if n.Port() == at[1] {
			return n
		}
	}
	s.t.Fatalf("redistest: the sentinels speak of a strange master: %v", at)
	return nil
}

// Failover has the sentinels promote the replica, and waits until all of them say
// so and it answers as a master. The old master goes on as its replica.
func (s *Sentinel) Failover() {
	s.t.Helper()
	old := s.Master()
	until(s.t, "a failover that begins", func() bool {
		_, err := Do(s.Sentinels[0].Addr(), "SENTINEL", "FAILOVER", MasterName)
		return err == nil // -NOGOODSLAVE: the sentinel has not heard of the replica for a moment
	})
	s.AwaitMaster(old)
}

// AwaitMaster waits until the sentinels have made another server than old the
// master, as after old.Kill().
func (s *Sentinel) AwaitMaster(old *Server) {
	s.t.Helper()
	until(s.t, "a new master", func() bool {
		for _, w := range s.Sentinels {
			at, err := Do(w.Addr(), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName)
			if err != nil || at.([]any)[1] == old.Port() {
				return false
			}
		}
		role, err := Do(s.Master().Addr(), "ROLE")
		return err == nil && role.([]any)[0] == "master"
	})
}

func (s *Sentinel) startSentinel(master string) *Server {
	s.t.Helper()
	w := &Server{t: s.t, dir: s.t.TempDir(), port: FreePort(s.t)}
	file := filepath.Join(w.dir, "sentinel.conf")
	text := "port " + w.port + "\nbind 127.0.0.1\ndir " + w.dir + "\nlogfile " + filepath.Join(w.dir, "log") +
		"\nsentinel monitor " + MasterName + " 127.0.0.1 " + master + " 2" +
		"\nsentinel down-after-milliseconds " + MasterName + " 500" +
		"\nsentinel failover-timeout " + MasterName + " 2000\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	w.launch(exec.Command("redis-server", file, "--sentinel"))
	s.t.Cleanup(w.Kill)
	if !w.await() {
		s.t.Fatal("redistest: a sentinel does not start")
	}
	return w
}

func addrs(all []*Server) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = s.Addr()
	}
	return out
}
