package manifest

import "context"

// Exports for tests in package manifest_test.
const (
	MaxKey      = maxKey
	MaxText     = maxText
	MBDBMagic   = mbdbMagic
	SQLiteMagic = "SQLite format 3\x00"
)

// ReadMeta reads the description of a row.
func ReadMeta(blob []byte, rec *Record) bool {
	var m metaReader
	return m.read(blob, rec)
}

// Build builds the Records of a manifest of size bytes. It adds rows until
// next returns nil.
func Build(ctx context.Context, size int64, next func() *Record) (*Records, error) {
	b := newRecordBuilder(size)
	for rec := next(); rec != nil; rec = next() {
		if err := b.add(rec); err != nil {
			return nil, err
		}
	}
	return b.finish(ctx)
}
