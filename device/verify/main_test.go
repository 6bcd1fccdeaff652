package verify

import (
	"testing"

	"github.com/snap-backup/snap/internal/ramtemp"
)

func TestMain(m *testing.M) {
	defer ramtemp.Use()()
	m.Run()
}
