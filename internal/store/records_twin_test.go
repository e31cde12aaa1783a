package store_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/recordtest"
)

func TestRecordsOfAFileAgainstAMap(t *testing.T) {
	root := t.TempDir()
	n := 0
	var last *store.File
	end := func() {
		if last != nil {
			if err := last.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	recordtest.Check(t, func(now func() time.Time) store.Records {
		end()
		n++
		f, err := store.OpenFile(filepath.Join(root, fmt.Sprint(n)))
		if err != nil {
			t.Fatal(err)
		}
		f.SetNow(now)
		last = f
		return f
	})
	end()
}
