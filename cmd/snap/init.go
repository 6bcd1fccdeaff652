package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/spf13/cobra"
)

// checkNewFolder returns an error if no repository can be made in a folder, before anybody
// invents a password for it.
func checkNewFolder(dir string) error {
	if err := checkAddress(dir); err != nil {
		return err
	}
	if isAddress(dir) {
		return nil
	}
	if program := foreignRepository(dir); program != "" {
		return foreignError(dir, program, repo.ErrExists)
	}
	return checkTarget(dir, false)
}

// checkEmpty refuses a folder with files that are not those of a repository: the folders
// of a repository would be mixed with them.
func checkEmpty(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		// An interrupted init leaves folders, and systems leave files on each disk.
		onDisks := strings.HasPrefix(e.Name(), ".") || slices.Contains([]string{"lost+found", "System Volume Information", "$RECYCLE.BIN"}, e.Name())
		if !repo.OwnName(e.Name()) && !onDisks {
			return advised{fmt.Errorf("the folder %s is not empty: it has %s: %w", dir, e.Name(), errNotEmpty),
				fmt.Sprintf("nothing was changed; make the repository in a folder of its own, such as %s", filepath.Join(dir, "snap"))}
		}
	}
	return nil
}

var errNotEmpty = errors.New("a repository needs an empty folder or a new one")

func (a *app) initCommand() *cobra.Command {
	var parity string
	var flags protectFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Create a repository",
		Long: `Creates a repository in the folder or at the address given with -r or
SNAP_REPOSITORY. Addresses are

` + addressForms() + `

The keys of an object store come from AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY or from ~/.aws. "-o s3.make-bucket=true" makes the bucket.

With "--lock 30d" the object store lets nobody remove a file before it is 30
days old; "snap help protect" explains this. The bucket must have Object Lock;
with "-o s3.make-bucket=true" it gets it.

The folder must be new or empty, so that the repository is not mixed with other
files.

The password comes from --password-file, --password-command, SNAP_PASSWORD,
--key-file or a prompt. Without it the repository cannot be read: add a recovery
key with "snap key add --recovery" and keep it on paper.

Some network shares do not support fsync, which makes sure that files survive a
power cut. init notices that, and snap then uses the repository without fsync.
An existing repository that was moved to such a share, and a mirror on one, need
--no-fsync or SNAP_NO_FSYNC=1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			percent := 0
			if parity != "" {
				var err error
				if percent, err = parsePercent(parity); err != nil {
					return err
				}
			}
			protection, err := flags.protection()
			if err != nil {
				return err
			}
			a.objectLock = protection.Period > 0
			dir, err := a.location()
			if err != nil {
				return err
			}
			if a.objectLock && !strings.HasPrefix(dir, "s3:") {
				return usageError{fmt.Errorf("--lock: %w", errNoProtection)}
			}
			if err := checkNewFolder(dir); err != nil {
				return err
			}
			be, err := a.newStore(ctx, dir)
			if err != nil {
				return err
			}
			if be != nil {
				defer be.Close()
			} else if err := checkEmpty(dir); err != nil {
				return err
			}
			secret, kind, err := a.newSecret(cmd.Context(), a.passwordFile, a.passwordCommand, a.keyFile, true)
			if err != nil {
				return err
			}
			defer clear(secret)
			if be == nil {
				if be, err = a.newFolder(dir); err != nil {
					return err
				}
				defer be.Close()
			}
			if err := setProtection(ctx, be, protection); err != nil {
				return fmt.Errorf("%s: no repository was created: %w", dir, err)
			}
			r, err := a.create(ctx, be, secret, kind)
			if err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
			if _, noDisk := r.Free(ctx); !errors.Is(noDisk, errors.ErrUnsupported) {
				if err := r.MakeReserve(ctx); err != nil {
					a.warn("the repository was created, but without a reserve for a full disk: %v", err)
				}
			}
			if percent > 0 {
				if _, err := r.RefreshParity(ctx, percent, nil); err != nil {
					return fmt.Errorf("the repository was created, but without parity: %w", err)
				}
			}
			result := struct {
				Repository string `json:"repository"`
				ID         string `json:"id"`
				Format     int    `json:"format"`
				NoFsync    bool   `json:"no_fsync,omitempty"`
			}{dir, r.Config().ID, r.Config().Version, r.Config().NoFsync}
			return a.conclude(result, false, func(w io.Writer) {
				fmt.Fprintf(w, "created repository %.8s in %s\n", result.ID, dir)
				if protection.Period > 0 {
					fmt.Fprintf(w, "the store protects each file for %s\n", periodText(protection.Period))
					a.remark("Run \"snap protect --lock %s\" daily on a second computer (snap help protect).", flags.lock)
				}
				if kind == crypto.PasswordSlot {
					a.remark("Keep the password: without it the repository cannot be read.\nTo get a recovery key, run \"snap key add --recovery\".")
				}
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&parity, "parity", "", "protect the repository against bit rot with this `percentage` of parity, such as 5% (snap help parity)")
	return cmd
}

// newStore rejects an existing repository before a prompt for the password. It prepares the
// store at an address, and returns nil for a folder, which is made after the prompt.
func (a *app) newStore(ctx context.Context, dir string) (be storage, err error) {
	exists := func(be backend.Backend) error {
		_, err := be.Stat(ctx, "config")
		if err == nil {
			return fmt.Errorf("%s: %w", dir, repo.ErrExists)
		}
		return nil
	}
	if !isAddress(dir) {
		if be, err := local.Open(dir); err == nil {
			return nil, exists(be)
		}
		return nil, nil
	}
	be, err = a.createFolder(ctx, dir)
	if errors.Is(err, backend.ErrExist) {
		be, err = a.openFolder(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	if err := exists(be); err != nil {
		return nil, errors.Join(err, be.Close())
	}
	return be, nil
}

// newFolder makes the folder of a repository.
func (a *app) newFolder(dir string) (storage, error) {
	be, err := local.Create(dir)
	if errors.Is(err, backend.ErrExist) {
		// An interrupted init may have left this folder. repo.Create rejects a folder that is
		// in use.
		be, err = local.Open(dir)
	}
	if err != nil {
		return nil, err
	}
	return be, nil
}

// create creates a repository. If the file system does not support fsync, the
// repository notes that, so that later commands go on.
func (a *app) create(ctx context.Context, be storage, secret []byte, kind crypto.SlotKind) (*repo.Repo, error) {
	info, opts := crypto.SlotInfo{Kind: kind, Label: whoami()}, a.options
	r, err := repo.Create(ctx, be, secret, info, opts)
	if !errors.Is(err, local.ErrNoFsync) {
		return r, err
	}
	a.warn("%v; this is recorded, and snap will use the repository without fsync: run \"snap check --read-data\" after a power cut, and keep a mirror on another disk", local.ErrNoFsync)
	opts.NoFsync = true
	return repo.Create(ctx, be, secret, info, opts)
}

// whoami returns user@host.
func whoami() string {
	host, _ := os.Hostname()
	if u, err := user.Current(); err == nil {
		return u.Username + "@" + host
	}
	return host
}
