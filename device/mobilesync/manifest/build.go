package manifest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// maxText bounds a domain, path or link target in bytes. A device's own limit
// is 1,024.
const maxText = 4096

// recordBuilder collects rows in any order and sorts them at the end. It fills
// pages in one buffer and keeps them as strings, so that reading a row later
// copies nothing.
type recordBuilder struct {
	out     Records
	numbers map[string]uint32 // of domains, in order of appearance
	names   []string
	page    []byte
	scratch []byte
	budget  int64 // bytes of encoded rows still allowed
	odd     int   // anomalies of the rows so far
}

// newRecordBuilder returns a builder that refuses to grow much beyond source,
// the size of the manifest in bytes. A hostile manifest may repeat the same
// page of rows without end.
func newRecordBuilder(source int64) *recordBuilder {
	return &recordBuilder{
		numbers: map[string]uint32{},
		page:    make([]byte, 0, pageSize),
		budget:  source + pageSize,
	}
}

// add copies rec and counts anomalies of its FileID and flags.
func (b *recordBuilder) add(rec *Record) error {
	usual := rec.HasFileID && usualFileID(rec.Domain, rec.RelativePath) == rec.FileID
	b.count(rec, usual)
	total := b.out.Anomalies.Total()
	odd := total > b.odd
	if odd {
		b.odd = total
		b.out.keepOdd(rec)
	}
	number, ok := b.numbers[rec.Domain]
	if !ok {
		name := strings.Clone(rec.Domain)
		number = uint32(len(b.names))
		b.numbers[name] = number
		b.names = append(b.names, name)
		b.budget -= int64(len(name)) + 64
	}
	b.scratch = appendRow(b.scratch[:0], rec, number, usual, odd)
	const perRow = 16 // bytes for reference, index and sorting
	b.budget -= int64(len(b.scratch)) + perRow
	if b.budget < 0 {
		return fmt.Errorf("%w: it has more rows than fit into its size", ErrCorrupt)
	}
	if len(b.page)+len(b.scratch) > pageSize {
		b.endPage()
		if len(b.out.pages) == maxPages {
			return fmt.Errorf("%w: its rows take more than 4 GiB", ErrCorrupt)
		}
	}
	b.out.refs = append(b.out.refs, rowRef(len(b.out.pages)<<pageBits|len(b.page)))
	b.page = append(b.page, b.scratch...)
	return nil
}

func (b *recordBuilder) endPage() {
	b.out.pages = append(b.out.pages, string(b.page))
	b.page = b.page[:0]
}

func (b *recordBuilder) count(rec *Record, usual bool) {
	a := &b.out.Anomalies
	if rec.HasFileID && !usual {
		a.FileIDMismatch++
	}
	switch rec.Flags {
	case FlagFile, FlagFolder, FlagSymlink:
		if rec.HasMeta && flagsOf(rec.Mode) != rec.Flags {
			a.FlagsMismatch++
		}
	default:
		a.OddFlags++
	}
}

// flagsOf returns the flags that match a mode, or 0.
func flagsOf(mode uint32) uint32 {
	switch mode & modeType {
	case modeFile:
		return FlagFile
	case modeFolder:
		return FlagFolder
	case modeSymlink:
		return FlagSymlink
	}
	return 0
}

// finish sorts and indexes the rows. The builder must not be used afterwards.
func (b *recordBuilder) finish(ctx context.Context) (*Records, error) {
	b.endPage()
	b.page, b.scratch, b.numbers = nil, nil, nil
	r := &b.out
	r.domains = b.names
	if err := r.sort(ctx); err != nil {
		return nil, err
	}
	r.index()
	return r, nil
}

// sort orders refs domain by domain, decoding the paths of one domain at a
// time. This is several times faster than comparing encoded rows, and needs
// extra memory for one domain only.
func (r *Records) sort(ctx context.Context) error {
	order := make([]uint32, len(r.domains))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return strings.Compare(r.domains[a], r.domains[b]) })

	for _, d := range order {
		r.ordered = append(r.ordered, r.domains[d])
	}

	starts := make([]int, len(r.domains)+1)
	for _, ref := range r.refs {
		w := r.row(ref)
		starts[w.domain]++
	}
	at := 0
	for _, d := range order {
		n := starts[d]
		starts[d] = at
		at += n
	}
	next := slices.Clone(starts)
	sorted := make([]rowRef, len(r.refs))
	for _, ref := range r.refs {
		w := r.row(ref)
		sorted[next[w.domain]] = ref
		next[w.domain]++
	}
	r.refs = sorted

	limit := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for d := range r.domains {
		if ctx.Err() != nil {
			break
		}
		limit <- struct{}{}
		wg.Go(func() {
			r.sortPaths(r.refs[starts[d]:next[d]])
			<-limit
		})
	}
	wg.Wait()
	return ctx.Err()
}

func (r *Records) sortPaths(refs []rowRef) {
	type keyed struct {
		path string
		ref  rowRef
	}
	rows := make([]keyed, len(refs))
	for i, ref := range refs {
		w := r.row(ref)
		rows[i] = keyed{w.path, ref}
	}
	slices.SortFunc(rows, func(a, b keyed) int {
		if c := strings.Compare(a.path, b.path); c != 0 {
			return c
		}
		x, y := r.row(a.ref), r.row(b.ref)
		// Rows without a FileID come first: their ID is zero.
		left, _ := r.fileID(&x)
		right, _ := r.fileID(&y)
		return cmp.Or(bytes.Compare(left[:], right[:]), cmp.Compare(a.ref, b.ref))
	})
	for i := range rows {
		refs[i] = rows[i].ref
	}
}

func (r *Records) index() {
	size := 16
	for size < len(r.refs)*3/2 {
		size *= 2
	}
	r.table = make([]uint32, size)
	// The seed keeps a hostile manifest from choosing FileIDs that collide. No
	// output depends on it.
	r.seed = maphash.MakeSeed()
	mask := uint64(size - 1)
rows:
	for i, ref := range r.refs {
		w := r.row(ref)
		id, ok := r.fileID(&w)
		if !ok {
			continue
		}
		at := maphash.Bytes(r.seed, id[:]) & mask
		for ; r.table[at] != 0; at = (at + 1) & mask {
			other := r.row(r.refs[r.table[at]-1])
			if got, ok := r.fileID(&other); ok && got == id {
				r.Anomalies.DuplicateFileID++
				if w.has&isOdd == 0 { // otherwise it is kept already
					rec := r.At(i)
					r.keepOdd(&rec)
				}
				continue rows
			}
		}
		r.table[at] = uint32(i + 1)
	}
}

// setFileID parses the text of a FileID. It accepts upper-case digits, since
// only the value determines the blob's name. It counts such a FileID as odd.
func (rec *Record) setFileID(text []byte, a *Anomalies) {
	rec.HasFileID = false
	if len(text) == 40 {
		if _, err := hex.Decode(rec.FileID[:], text); err == nil {
			rec.HasFileID = true
			if bytes.ContainsAny(text, "ABCDEF") {
				a.OddFileID++
			}
			return
		}
	}
	rec.FileID = [20]byte{}
	a.OddFileID++
}
