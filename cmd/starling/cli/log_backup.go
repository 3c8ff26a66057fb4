package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/locallog/backup"
)

func newLogBackup(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Back up a local log while its process serves",
		Long: `Ask the process that uses the log in a directory for a backup in a new directory,
and wait until it is made and read through. It holds everything that was
acknowledged before the command; for each partition the backup's backup.json says
up to which offset. On the same file system tables are linked, which takes hardly
any space or time; copy the backup to another disk then. Run it where the process
runs, as its user: it is reached through a socket in the log's directory.`,
		Example: "  starling log backup --data data/log --to /backup/monday",
		Args:    usageArgs(cobra.NoArgs),
	}
	dir, asJSON := dataFlag(cmd), jsonFlag(cmd)
	to := cmd.Flags().String("to", "", "Directory to make, as the process sees it.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *dir == "" || *to == "" {
			return usage(errors.New("--data must name the directory of the log, --to the one to make"))
		}
		target, err := filepath.Abs(*to)
		if err != nil {
			return err
		}
		m, err := app.RequestBackup(cmd.Context(), *dir, target)
		if errors.Is(err, app.ErrNotServed) {
			return fmt.Errorf("back up %s: %w (of a log that is not in use, copy the directory)", *dir, err)
		}
		if err != nil {
			return fmt.Errorf("back up %s: %w", *dir, err)
		}
		if *asJSON {
			return dialect.Print(world.Out, m)
		}
		_, err = fmt.Fprintf(world.Out, "%s: everything acknowledged before %s, epoch %d, %d partitions\n", target, m.Began.UTC().Format("2006-01-02 15:04:05.000Z"), m.Epoch, len(m.Partitions))
		return err
	}
	return cmd
}

func newLogRestore(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Make a local log of a backup, in a raised epoch",
		Long: `Copy a backup to a new directory, which then opens as a log. What was acknowledged
after the backup is lost, and its offsets are used again for other records: so the
epoch is raised above the backup's. Vehicles are unknown until they report, and who
keeps positions of the log (a resume token, an export) starts over in the new epoch.
If the epoch was raised after the backup was made, name a higher one: the log that
is replaced shows its epoch under ` + "`starling log check`" + `.`,
		Example: "  starling log restore --from /backup/monday --data data/log\n  starling log restore --from /backup/monday --data data/log --epoch 5",
		Args:    usageArgs(cobra.NoArgs),
	}
	dir, asJSON := dataFlag(cmd), jsonFlag(cmd)
	from := cmd.Flags().String("from", "", "Directory of the backup; it stays as it is.")
	epoch := cmd.Flags().Int64("epoch", 0, "Least epoch of the restored log.")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *dir == "" || *from == "" || *epoch < 0 {
			return usage(errors.New("--from must name the backup, --data the directory to make, and --epoch must not be negative"))
		}
		m, err := backup.Restore(vfs.Default, filepath.Clean(*from), filepath.Clean(*dir), *epoch)
		if errors.Is(err, backup.ErrNotEmpty) || errors.Is(err, backup.ErrNoBackup) {
			return usage(err)
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", *from, err)
		}
		if *asJSON {
			return dialect.Print(world.Out, m)
		}
		_, err = fmt.Fprintf(world.Out, "%s: as of %s, in epoch %d: vehicles are unknown until they report, and readers start over\n", *dir, m.Began.UTC().Format("2006-01-02 15:04:05.000Z"), m.Epoch)
		return err
	}
	return cmd
}
