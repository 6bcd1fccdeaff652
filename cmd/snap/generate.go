package main

import (
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/spf13/cobra"
)

// generated is a device for which "snap generate" has made backups.
type generated struct {
	UDID      string `json:"udid"`
	Name      string `json:"name"`
	Encrypted bool   `json:"encrypted"`
}

// generateCommand makes synthetic backups for tests and benchmarks. It is hidden,
// because users do not need it.
func (a *app) generateCommand() *cobra.Command {
	conf := synthetic.Config{}
	var scale, encryption string
	var days int
	cmd := &cobra.Command{
		Use:    "generate FOLDER",
		Short:  "Generate backup folders of several devices and days",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			var err error
			if conf.Scale, err = synthetic.ParseScale(scale); err != nil {
				return usageError{err}
			}
			policies := map[string]synthetic.Encryption{
				"none": synthetic.EncryptNone, "all": synthetic.EncryptAll, "alternate": synthetic.EncryptAlternate,
			}
			var ok bool
			if conf.Encryption, ok = policies[encryption]; !ok {
				return usageError{fmt.Errorf("--encrypt takes none, all or alternate, not %q", encryption)}
			}
			devices, err := synthetic.Generate(cmd.Context(), argv[0], conf, days)
			if err != nil {
				return err
			}
			result := []generated{}
			for _, d := range devices {
				result = append(result, generated{d.UDID, d.Name, d.Encrypted})
			}
			return a.conclude(result, false, func(w io.Writer) {
				for _, d := range result {
					fmt.Fprintf(w, "%s  %s\n", d.UDID, d.Name)
				}
			})
		},
	}
	cmd.AddCommand(a.generateManCommand())
	f := cmd.Flags()
	f.Uint64Var(&conf.Seed, "seed", 1, "equal seeds make equal folders")
	f.IntVar(&conf.Devices, "devices", 2, "number of devices")
	f.IntVar(&days, "days", 1, "number of days")
	f.StringVar(&scale, "scale", "small", synthetic.ScaleUsage)
	f.StringVar(&encryption, "encrypt", "none", "which devices encrypt: none, all or alternate")
	f.StringVar(&conf.Password, "backup-password", synthetic.DefaultPassword, "`password` of encrypted backups")
	f.BoolVar(&conf.CompactDBs, "compact", false, "compact the databases, so that pages move")
	return cmd
}
