package gatetest

import "testing"

func TestSecondsMayHavePassed(t *testing.T) {
	for _, c := range []struct{ got, want, settled string }{
		{"ratelimit: \"a\";r=1;t=40\n", "ratelimit: \"a\";r=1;t=41\n", "ratelimit: \"a\";r=1;t=41\n"},
		{"ratelimit: \"a\";r=0;t=42\n", "ratelimit: \"a\";r=1;t=41\n", "ratelimit: \"a\";r=0;t=42\n"}, // more than expected
		{"retry-after: 10\n", "retry-after: 41\n", "retry-after: 10\n"},                               // much less
		{"retry-after: 0\n", "retry-after: 1\n", "retry-after: 0\n"},                                  // never at once
		{";t=7, ;t=8\nretry-after: 9\n", ";t=<t>, ;t=8\nretry-after: <t>\n", ";t=<t>, ;t=8\nretry-after: <t>\n"},
		{";t=7\n", "", ";t=7\n"},
		{"retry-after: 9\n", ";t=9\n", "retry-after: 9\n"},
	} {
		if got := settle(c.got, c.want); got != c.settled {
			t.Errorf("%q for %q: %q, want %q", c.got, c.want, got, c.settled)
		}
	}
}
