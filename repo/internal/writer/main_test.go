package writer_test

import (
	"flag"
	"os"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
)

// TestMain lets property tests try fewer cases by default. The flag
// -rapid.checks overrides it.
func TestMain(m *testing.M) {
	if !faultpoint.All() {
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
