package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const slots = 16384

// Cluster is three masters without replicas that share the slots.
type Cluster struct {
	t     testing.TB
	Nodes []*Server
}

// StartCluster starts one and waits until every node says that it is complete.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	const size = 3
	c := &Cluster{t: t}
	for range size {
		c.Nodes = append(c.Nodes, Start(t, "--cluster-enabled", "yes", "--cluster-port", FreePort(t),
			"--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"))
	}
	first := c.Nodes[0]
	for i, n := range c.Nodes {
		n.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/size), strconv.Itoa((i+1)*slots/size-1))
		if i > 0 {
			n.Do("CLUSTER", "MEET", "127.0.0.1", first.Port(), busPort(first))
		}
	}
	for _, n := range c.Nodes {
		until(t, "a complete cluster", func() bool {
			info := n.Do("CLUSTER", "INFO").(string)
			return strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", size)) &&
				strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slots))
		})
	}
	return c
}

// Addrs are the nodes' addresses.
func (c *Cluster) Addrs() []string { return addrs(c.Nodes) }

// Owner is the node that holds the key.
func (c *Cluster) Owner(key string) *Server {
	c.t.Helper()
	slot := c.slot(key)
	for _, v := range c.Nodes[0].Do("CLUSTER", "SLOTS").([]any) {
		r := v.([]any)
		if r[0].(int64) > slot || slot > r[1].(int64) {
			continue
		}
		for _, n := range c.Nodes {
			if n.Port() == strconv.FormatInt(r[2].([]any)[1].(int64), 10) {
				return n
			}
		}
	}
	c.t.Fatalf("redistest: nobody owns slot %d", slot)
	return nil
}

// BeginMove begins to move the key's slot to another node, as resharding does,
// and returns both. Until EndMove the old owner answers for keys that it still
// has, and with ASK or TRYAGAIN for others.
func (c *Cluster) BeginMove(key string) (from, to *Server) {
	c.t.Helper()
	from = c.Owner(key)
	for _, to = range c.Nodes {
		if to != from {
			break
		}
	}
	slot := strconv.FormatInt(c.slot(key), 10)
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", id(from))
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", id(to))
	return from, to
}

// EndMove moves the slot's keys and then the slot.
func (c *Cluster) EndMove(key string, from, to *Server) {
	c.t.Helper()
	slot := strconv.FormatInt(c.slot(key), 10)
	for {
		keys := from.Do("CLUSTER", "GETKEYSINSLOT", slot, "100").([]any)
		if len(keys) == 0 {
			break
		}
		move := []string{"MIGRATE", "127.0.0.1", to.Port(), "", "0", "5000", "KEYS"}
		for _, k := range keys {
			move = append(move, k.(string))
		}
		from.Do(move...)
	}
	for _, n := range []*Server{to, from} {
		n.Do("CLUSTER", "SETSLOT", slot, "NODE", id(to))
	}
	for _, n := range c.Nodes {
		if n != to && n != from {
			n.Do("CLUSTER", "SETSLOT", slot, "NODE", id(to))
		}
	}
	until(c.t, "a moved slot", func() bool { return c.Owner(key) == to })
}

// MoveSlot moves the key's slot, with its keys, to another node.
func (c *Cluster) MoveSlot(key string) {
	c.t.Helper()
	from, to := c.BeginMove(key)
	c.EndMove(key, from, to)
}

func (c *Cluster) slot(key string) int64 {
	return c.Nodes[0].Do("CLUSTER", "KEYSLOT", key).(int64)
}

func id(s *Server) string { return s.Do("CLUSTER", "MYID").(string) }

func busPort(s *Server) string {
	for i, a := range s.args {
		if a == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}
