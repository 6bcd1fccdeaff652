package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completionTime bounds the wait for a repository or devices. A shell that waits longer
// seems to hang.
const completionTime = 2 * time.Second

// completer lists what an argument can be. It prints nothing, asks nobody, and returns
// nothing if something fails.
type completer func(ctx context.Context, a *app, cmd *cobra.Command, args []string, typed string) []string

// addCompletion makes the shell complete the arguments and flags of a command and its
// subcommands. Which argument is what is read from the command's usage line.
func (a *app) addCompletion(cmd *cobra.Command) {
	if words := strings.Fields(cmd.Use)[1:]; cmd.RunE != nil && cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = a.completeArgs(words)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		var c completer
		switch name := f.Name; {
		case name == "device" && cmd.Name() == "restore":
			c = connectedDevices
		case name == "device", name == "unfinished":
			c = storedDevices
		case name == "tag", name == "keep-tag", cmd.Name() == "tag" && slices.Contains([]string{"add", "remove", "set"}, name):
			c = storedTags
		default:
			return
		}
		// It fails only if the flag has a function already.
		_ = cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			return a.complete(cmd, args, typed, c), cobra.ShellCompDirectiveNoFileComp
		})
	})
	for _, c := range cmd.Commands() {
		a.addCompletion(c)
	}
}

// completeArgs returns the function that completes the arguments of a command with these
// words after its name, such as "SNAPSHOT TARGET".
func (a *app) completeArgs(words []string) cobra.CompletionFunc {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.HasPrefix(strings.TrimPrefix(w, "["), "--") })
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		word := ""
		switch n := len(words); {
		case len(args) < n:
			word = words[len(args)]
		case n > 0 && strings.Contains(words[n-1], "..."):
			word = words[n-1]
		}
		has := func(part string) bool { return strings.Contains(word, part) }
		var list []completer
		if has("SNAPSHOT") {
			list = append(list, storedSnapshots)
		}
		if has("DEVICE") {
			c := connectedDevices
			if name := cmd.CommandPath(); name == "snap snapshots" || name == "snap verify" || name == "snap history" || strings.HasPrefix(name, "snap device password") {
				c = storedDevices
			}
			list = append(list, c)
		}
		switch {
		case has("DOMAIN"):
			return a.complete(cmd, args, typed, storedFiles), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		case has("FOLDER"), has("TARGET"), has("REPOSITORY"):
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		return a.complete(cmd, args, typed, list...), cobra.ShellCompDirectiveNoFileComp
	}
}

// complete calls completers for at most completionTime. It keeps what begins with the
// letters that were typed; case does not matter.
func (a *app) complete(cmd *cobra.Command, args []string, typed string, list ...completer) []string {
	a.runs(cmd)
	if a.configure(cmd) != nil {
		return nil
	}
	quiet := *a
	// Without a keyboard nobody is asked, and a password from standard input is empty.
	quiet.stdin, quiet.stdout, quiet.stderr = strings.NewReader(""), io.Discard, io.Discard
	quiet.quiet, quiet.noLock, quiet.neverAsk = true, true, true
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	found := make(chan []string, 1)
	go func() {
		var all []string
		for _, c := range list {
			all = append(all, c(ctx, &quiet, cmd, args, typed)...)
		}
		found <- all
	}()
	var out []string
	select {
	case all := <-found:
		for _, item := range all {
			if len(item) >= len(typed) && strings.EqualFold(item[:len(typed)], typed) {
				out = append(out, item)
			}
		}
	case <-ctx.Done(): // a disk or server that does not answer
	}
	return out
}

// described returns a completion with a description.
func described(item, about string) string { return clean(item) + "\t" + clean(about) }

// snapshotsToComplete returns the snapshots of the repository if it opens without a prompt.
func (a *app) snapshotsToComplete(ctx context.Context) (*repo.Repo, []*repo.Snapshot) {
	r, err := a.open(ctx)
	if err != nil {
		return nil, nil
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, nil
	}
	return r, list
}

func storedSnapshots(ctx context.Context, a *app, _ *cobra.Command, args []string, _ string) []string {
	_, list := a.snapshotsToComplete(ctx)
	if len(list) == 0 {
		return nil
	}
	var out []string
	for _, s := range slices.Backward(list) { // newest first
		if id := s.ID.Short(); !slices.Contains(args, id) {
			out = append(out, described(id, timeText(s.Time)+" "+s.Device.Name))
		}
	}
	return append(out, described("latest", "the latest snapshot"))
}

func storedDevices(ctx context.Context, a *app, _ *cobra.Command, _ []string, _ string) []string {
	_, list := a.snapshotsToComplete(ctx)
	var out []string
	seen := map[string]bool{}
	for _, s := range slices.Backward(list) {
		if key := strings.ToLower(s.Device.UDID); !seen[key] {
			seen[key] = true
			out = append(out, described(s.Device.Name, s.Device.UDID))
		}
	}
	return out
}

func storedTags(ctx context.Context, a *app, _ *cobra.Command, _ []string, _ string) []string {
	_, list := a.snapshotsToComplete(ctx)
	var out []string
	for _, s := range list {
		out = append(out, s.Tags...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func connectedDevices(ctx context.Context, _ *app, _ *cobra.Command, _ []string, _ string) []string {
	m, err := mux()
	if err != nil {
		return nil
	}
	entries, err := m.List(ctx)
	if err != nil {
		return nil
	}
	infos := make([]*device.Info, len(entries))
	each(len(entries), readyAtOnce, func(i int) {
		infos[i], _ = m.Describe(ctx, entries[i]) // without a name, the UDID is offered
	})
	var out []string
	for i, e := range entries {
		if info := infos[i]; info != nil && info.Name != "" {
			out = append(out, described(info.Name, e.UDID))
		} else {
			out = append(out, e.UDID)
		}
	}
	return out
}

// storedFiles completes a domain, or a path in it, of the snapshot that the first argument
// names.
func storedFiles(ctx context.Context, a *app, _ *cobra.Command, args []string, typed string) []string {
	r, _ := a.snapshotsToComplete(ctx)
	if r == nil || len(args) == 0 {
		return nil
	}
	found, _, err := r.FindIndexed(ctx, a.spec(args[0]))
	if err != nil { // it may be a device
		found, _, err = r.FindIndexed(ctx, "latest:"+a.deviceName(args[0]))
	}
	if err != nil {
		return nil
	}
	l := lister{items: []lsItem{}}
	if folder, _, inside := cutLast(typed, "/"); inside {
		l.inside = true
		l.domain, l.below, _ = strings.Cut(folder, "/")
	}
	if lost, err := a.list(ctx, r, found[0], &l); err != nil || lost != nil {
		return nil
	}
	var out []string
	for _, item := range l.items {
		text := item.Domain
		if item.Name != "" {
			text += "/" + item.Name
		}
		if item.Type != "file" {
			text += "/"
		}
		out = append(out, clean(text))
	}
	return out
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
