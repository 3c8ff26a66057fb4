package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/locallog/backup"
	"github.com/starling-fleet/starling/internal/locallog/repair"
)

func newLog(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "log",
		Short:   "Back up a local log, or check, repair or restore one that is not in use",
		GroupID: "run",
		Example: "  starling log backup --data data/log --to /backup/monday\n  starling log check --data data/log\n  starling log repair --data data/log --yes",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLogCheck(world), newLogRepair(world), newLogBackup(world), newLogRestore(world))
	return cmd
}

// dataFlag adds --data, which must be set.
func dataFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("data", "", "Directory of the log (local.directory of starling up).")
}

// checkLog checks a log's directory and turns wrong use into its exit code.
func checkLog(cmd *cobra.Command, world IO, dir string) (*repair.Report, error) {
	if dir == "" {
		return nil, usage(errors.New("--data must name the directory of the log"))
	}
	logger, err := app.NewLogger(app.DefaultConfig().Log, world.Err)
	if err != nil {
		return nil, err
	}
	report, err := repair.Check(cmd.Context(), dir, logger)
	return report, logUsage(err)
}

func logUsage(err error) error {
	if errors.Is(err, repair.ErrNoLog) {
		return usage(err)
	}
	return err
}

func newLogCheck(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read everything in a local log and report what is missing or damaged",
		Long: `Read every block of both stores and every chunk of every partition, hold them
against what was acknowledged, and report. Nothing is changed. The log must not be
in use. Exit code 0 says that everything acknowledged is there, 3 that it is not, 1
that the check could not be made.`,
		Example: "  starling log check --data data/log",
		Args:    usageArgs(cobra.NoArgs),
	}
	dir, asJSON := dataFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		report, err := checkLog(cmd, world, *dir)
		if err != nil {
			return err
		}
		if *asJSON {
			err = dialect.Print(world.Out, report)
		} else {
			err = printLogReport(world.Out, report)
		}
		if err == nil && len(report.Findings) > 0 {
			err = answerNo("the log in %s does not hold everything that was acknowledged (`starling log repair --data %s` shows what a repair would do)", *dir, *dir)
		}
		return err
	}
	return cmd
}

func offsetOrUnknown(offset int64) string {
	if offset < 0 {
		return "unknown"
	}
	return strconv.FormatInt(offset, 10)
}

func printLogReport(w io.Writer, r *repair.Report) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "TOPIC\tPARTITION\tFIRST\tEND\tACKNOWLEDGED\tSTATE")
	for _, p := range r.Partitions {
		state := "whole"
		switch {
		case p.Damaged:
			state = "DAMAGED"
		case p.End < 0:
			state = "NOT READ"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%s\t%s\n", p.Topic, p.Partition, p.First, offsetOrUnknown(p.End), offsetOrUnknown(p.Acknowledged), state)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(w, "format %d, epoch %d; read %d records in %d chunks of %d segments (%d bytes), %d keys of the state store\n",
		r.Format, r.Epoch, r.Records, r.Chunks, r.Segments, r.Bytes, r.StateKeys)
	for _, g := range r.Gaps {
		if g.To > g.From {
			_, _ = fmt.Fprintf(w, "declared lost by an earlier repair: topic %d partition %d offsets %d to %d\n", g.Topic, g.Partition, g.From, g.To-1)
		}
	}
	for _, note := range r.Notes {
		_, _ = fmt.Fprintf(w, "note: %s\n", note)
	}
	for _, f := range r.Findings {
		_, _ = fmt.Fprintf(w, "damage: %s\n", f)
	}
	if len(r.Findings) == 0 {
		_, err := fmt.Fprintln(w, "everything that was acknowledged is there")
		return err
	}
	return nil
}

func newLogRepair(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Make a local log that opens of what can be read, and raise its epoch",
		Long: `Keep what can be read of a damaged local log, declare the rest lost, and raise the
epoch: vehicles are unknown until they report again, and offsets go on behind the
former end. A damaged store is written anew from its files, which needs as much
space again; the damaged one is kept beside it.

Without --yes it only shows what was found. The log must not be in use.`,
		Example: `  starling log repair --data data/log
  starling log repair --data data/log --yes`,
		Args: usageArgs(cobra.NoArgs),
	}
	dir, asJSON := dataFlag(cmd), jsonFlag(cmd)
	confirmed := cmd.Flags().Bool("yes", false, "Do it.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !*confirmed {
			report, err := checkLog(cmd, world, *dir)
			if err != nil {
				return err
			}
			if *asJSON {
				return dialect.Print(world.Out, report)
			}
			if err := printLogReport(world.Out, report); err != nil || len(report.Findings) == 0 {
				return err
			}
			_, err = fmt.Fprintf(world.Out, "With --yes: what is damaged or missing above is written anew from what can be read, at most these offsets are declared lost (in a store that can't be opened, what the repair can't read), the epoch is raised from %d, and what is replaced is kept beside it.\n", report.Epoch)
			return err
		}
		if *dir == "" {
			return usage(errors.New("--data must name the directory of the log"))
		}
		logger, err := app.NewLogger(app.DefaultConfig().Log, world.Err)
		if err != nil {
			return err
		}
		out, err := repair.Repair(cmd.Context(), *dir, logger)
		if errors.Is(err, repair.ErrWhole) {
			_, err = fmt.Fprintln(world.Out, "The log is whole: nothing was changed.")
			return err
		}
		if err != nil {
			return logUsage(err)
		}
		if *asJSON {
			return dialect.Print(world.Out, out)
		}
		return printRepair(world.Out, out)
	}
	return cmd
}

func printRepair(w io.Writer, out *repair.Outcome) error {
	for _, l := range out.Lost {
		_, _ = fmt.Fprintln(w, l)
	}
	if len(out.Lost) == 0 {
		_, _ = fmt.Fprintln(w, "no record is lost")
	}
	if out.StateLost {
		_, _ = fmt.Fprintln(w, "the checkpoints are lost: trackers read what is left of the log from its beginning")
	}
	_, err := fmt.Fprintf(w, "epoch %d; what was replaced is kept in %s: remove it when it is not needed any more\n", out.Epoch, out.KeptIn)
	return err
}

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
