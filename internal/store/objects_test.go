package store

import "testing"

func TestPurgeKindsHaveNames(t *testing.T) {
	for kind, want := range map[PurgeKind]string{PurgeURI: "uri", PurgeTag: "tag", PurgePrefix: "prefix", PurgeAll: "all"} {
		if got := kind.String(); got != want {
			t.Errorf("%d is %q, want %q", kind, got, want)
		}
	}
}
