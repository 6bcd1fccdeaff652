package check_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// Content that was stored wrong has the right hash. Checks that decode a tenth find it
// after ten times, whatever its pack, and then tell the same as a check that decodes all.
func TestSamplesDecodeEverythingInTurn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, place := range []int{0, 12, 23} {
		be := memory.New()
		r := repotest.Create(t, be)
		var chunks [][]byte
		wrong := ""
		for i := range 24 {
			b := repotest.Raw(repotest.Noise(uint64(i), 500))
			chunks = append(chunks, b.Chunks[0])
			if i == place {
				b = repotest.Block{Chunks: [][]byte{repotest.Noise(99, 500)}, Named: chunks[i]}
			}
			name := repotest.PutPack(t, r, be, pack.Content, b)
			if i == place {
				wrong = name
			}
		}
		repotest.CommitChunks(t, be, 1, chunks...)
		packs := len(repotest.FilesIn(t, be, repotest.PacksDir))
		decoded := 0
		for day := 1; ; day++ {
			rep, err := checkPart(ctx, be, day, repo.CheckOptions{ReadData: 1, Sample: true})
			if err != nil || rep.ReadPacks != packs {
				t.Fatal(rep, err)
			}
			decoded += rep.DecodedPacks
			if !rep.Clean() {
				full, err := checkPart(ctx, be, day+1, repo.CheckOptions{ReadData: 1})
				if err != nil || !reflect.DeepEqual(rep.Problems, full.Problems) || !reflect.DeepEqual(rep.Affected, full.Affected) {
					t.Fatalf("%+v\n%+v, %v", rep, full, err)
				}
				if rep.DecodedPacks != packs || rep.Problems[0].File != wrong || len(rep.Affected) != 1 || rep.Affected[0].Files != 1 {
					t.Fatalf("%+v", rep)
				}
				break
			}
			if want := (packs + 9) / 10; rep.DecodedPacks != want || decoded >= packs {
				t.Fatalf("day %d: %d packs of %d were decoded, %d in all, and nothing was found", day, rep.DecodedPacks, packs, decoded)
			}
		}
	}
}

// A pack whose only witness is its own header may have the header of another one, so all
// of it is decoded.
func TestSampleDoesNotTrustHeaders(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	x := repotest.MustOpen(t, be).Index()
	all := repotest.Content(t, be)
	at := slices.IndexFunc(x.Packs(), func(p index.Pack) bool { return p.Kind == pack.Content })
	old := x.Packs()[at]
	_, b := x.Block(old.Blocks[0])
	forged := all[repotest.PackName(old.ID)]
	forged[int(b.Offset)+20] ^= 1
	name := repotest.PackName(pack.Name(forged))
	if err := errors.Join(be.Delete(ctx, repotest.PackName(old.ID)), be.Set(name, forged)); err != nil {
		t.Fatal(err)
	}
	// A damaged index file makes LoadIndex read the headers.
	for _, f := range repotest.FilesIn(t, be, repotest.IndexDir) {
		if err := be.Set(f, all[f][:len(all[f])-1]); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1, Sample: true})
	if err != nil || rep.DecodedPacks != rep.ReadPacks || !slices.ContainsFunc(rep.Problems, func(p repo.Problem) bool { return p.File == name }) {
		t.Fatalf("%+v, %v", rep, err)
	}
}

// A store that fails ends a check, and the packs that were read before count as read.
func TestInterruptedSample(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3)
	packs := len(repotest.FilesIn(t, base, repotest.PacksDir))
	check := func(be backend.Backend) error {
		_, err := checkPart(context.Background(), be, 1, repo.CheckOptions{ReadData: 1, Sample: true})
		return err
	}
	repotest.EveryFault(t, repotest.Run{Base: base, Do: check, Least: packs, Want: 12}, func(be *memory.Backend, _ error) error {
		rep, err := checkPart(context.Background(), be, 2, repo.CheckOptions{ReadData: 1, Sample: true})
		if err == nil && (!rep.Clean() || rep.ReadPacks != packs || rep.UnreadPacks != 0) {
			return errors.New("the next check is not clean")
		}
		return err
	})
}
