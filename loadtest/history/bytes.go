package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/internal/config"
)

// set is drives of one kind and the most bytes that a fix of theirs may take in
// ClickHouse; the lake may take lakeMore.
type set struct {
	name     string
	patterns []string
	most     float64
}

const lakeMore = 2

var sets = []set{
	{"chipset drives", []string{"truth/gsdc_chipset_*.csv.gz", "drives/whu_*.csv.gz"}, 9},
	{"fleet/a60", []string{"fleet/a60.csv.gz"}, 11},
	{"Hong Kong", []string{"truth/urbannavhk_*.csv.gz", "drives/urbannavhk_*.csv.gz"}, 14},
}

// Used is what a set takes.
type Used struct {
	Set              string
	Fixes            int
	ClickHouse, Lake float64 // bytes per fix
	Most             float64 // of ClickHouse
}

// Bytes writes recorded drives to both sinks and measures what they take on disk, in
// ClickHouse after all merges. Data is the directory of the drives.
func Bytes(ctx context.Context, data string) ([]Used, error) {
	dir, err := os.MkdirTemp("", "starling-history-bytes-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	engine, err := clickhousetest.Install(ctx)
	if err != nil {
		return nil, err
	}
	server, err := clickhousetest.Launch(engine, dir)
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	var out []Used
	for i, s := range sets {
		fixes, err := drives(data, s.patterns)
		if err != nil {
			return nil, err
		}
		if len(fixes) == 0 {
			return nil, fmt.Errorf("%s has no %s", data, s.name)
		}
		rows, err := rowsOf(fixes)
		if err != nil {
			return nil, err
		}
		u := Used{Set: s.name, Fixes: len(rows), Most: s.most}
		if u.Lake, err = inLake(ctx, filepath.Join(dir, fmt.Sprint("lake", i)), rows); err != nil {
			return nil, err
		}
		if u.ClickHouse, err = inClickHouse(ctx, server, fmt.Sprint("set", i), rows); err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// batchRows are the rows of a batch, as the role has them by default.
const batchRows = 50_000

func write(ctx context.Context, rows []row.Fix, put func(context.Context, *row.Batch) (row.Written, error)) error {
	for first := 0; first < len(rows); first += batchRows {
		end := min(first+batchRows, len(rows))
		if _, err := put(ctx, &row.Batch{Epoch: 1, First: int64(first), Last: int64(end - 1), Rows: rows[first:end]}); err != nil {
			return err
		}
	}
	return nil
}

func inLake(ctx context.Context, dir string, rows []row.Fix) (perFix float64, err error) {
	sink, err := lake.NewSink(dir)
	if err != nil {
		return 0, err
	}
	if err := write(ctx, rows, sink.Write); err != nil {
		return 0, err
	}
	var bytes int64
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		bytes += info.Size()
		return err
	})
	return float64(bytes) / float64(len(rows)), err
}

func inClickHouse(ctx context.Context, server *clickhousetest.Server, database string, rows []row.Fix) (perFix float64, err error) {
	cfg := clickhouse.DefaultConfig()
	cfg.Addrs, cfg.Database, cfg.Username, cfg.Password = []string{server.Addr()}, database, clickhousetest.User, config.Secret(clickhousetest.Password)
	if _, err := clickhouse.Migrate(ctx, cfg); err != nil {
		return 0, err
	}
	sink, err := clickhouse.NewSink(cfg)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(write(ctx, rows, sink.Write), sink.Close()); err != nil {
		return 0, err
	}
	conn, err := ch.Open(&ch.Options{Addr: cfg.Addrs, Auth: ch.Auth{Database: database, Username: clickhousetest.User, Password: clickhousetest.Password}})
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	for _, table := range []string{"fixes", "arrivals"} {
		if err := conn.Exec(ctx, "OPTIMIZE TABLE "+table+" FINAL"); err != nil {
			return 0, err
		}
	}
	var kept, bytes uint64
	if err := conn.QueryRow(ctx, "SELECT sumIf(rows, table = 'fixes'), sum(bytes_on_disk) FROM system.parts WHERE database = ? AND table IN ('fixes', 'arrivals') AND active", database).Scan(&kept, &bytes); err != nil {
		return 0, err
	}
	if kept != uint64(len(rows)) {
		return 0, fmt.Errorf("ClickHouse keeps %d rows of %d", kept, len(rows))
	}
	return float64(bytes) / float64(len(rows)), nil
}

// Print writes a table of what was measured and returns whether every set holds.
func Print(w io.Writer, used []Used) (holds bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "set\tfixes\tClickHouse\tat most\tlake\tat most\t")
	holds = true
	for _, u := range used {
		_, _ = fmt.Fprintf(t, "%s\t%d\t%.2f\t%.0f\t%.2f\t%.0f\t\n", u.Set, u.Fixes, u.ClickHouse, u.Most, u.Lake, u.Most+lakeMore)
		holds = holds && u.ClickHouse <= u.Most && u.Lake <= u.Most+lakeMore
	}
	_ = t.Flush()
	return holds
}
