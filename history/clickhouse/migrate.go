package clickhouse

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migration is one step of the schema, of a file NNNN_name.sql. Its statements may run
// again: a crash between two leaves a step in part and unrecorded.
type migration struct {
	version    int
	name       string
	statements []string
}

// all returns the migrations by version, which count up from 1.
func all() ([]migration, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var out []migration
	for i, path := range files { // sorted
		name := strings.TrimSuffix(strings.TrimPrefix(path, "migrations/"), ".sql")
		version, err := strconv.Atoi(name[:4])
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s is not number %d", path, i+1)
		}
		text, err := migrations.ReadFile(path)
		if err != nil {
			return nil, err
		}
		m := migration{version: version, name: name}
		for statement := range strings.SplitSeq(string(text), ";\n") {
			if statement = strings.TrimSpace(statement); statement != "" {
				m.statements = append(m.statements, statement)
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// Migrated is what Migrate has done.
type Migrated struct {
	// From and To are the versions of the schema before and after.
	From, To int
}

// ErrSchema means that the tables are not those that this build writes and reads.
var ErrSchema = errors.New("clickhouse: the schema of history does not fit this build")

const migrationsTable = `CREATE TABLE IF NOT EXISTS schema_migrations (version UInt32, name String, applied_at DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY version`

// Migrate makes the database and brings its tables to this build's version, and puts
// the retention in force. It refuses a schema that is newer. One process at a time
// may run it; after a crash it is run again.
func Migrate(ctx context.Context, cfg Config) (Migrated, error) {
	if !cfg.On() {
		return Migrated{}, ErrOff
	}
	steps, err := all()
	if err != nil {
		return Migrated{}, err
	}
	if err := createDatabase(ctx, &cfg); err != nil {
		return Migrated{}, err
	}
	conn, err := cfg.open(cfg.Database)
	if err != nil {
		return Migrated{}, err
	}
	defer func() { _ = conn.Close() }()
	run := func(statement string, args ...any) error {
		ctx, cancel := cfg.bounded(ctx)
		defer cancel()
		return conn.Exec(ctx, statement, args...)
	}
	if err := run(migrationsTable); err != nil {
		return Migrated{}, fmt.Errorf("clickhouse: make schema_migrations: %w", err)
	}
	version, err := schemaVersion(ctx, &cfg, conn)
	if err != nil {
		return Migrated{}, err
	}
	done := Migrated{From: version, To: version}
	if version > len(steps) {
		return done, fmt.Errorf("%w: it is version %d, this build's is %d", ErrSchema, version, len(steps))
	}
	for _, m := range steps[version:] {
		for _, statement := range m.statements {
			if err := run(statement); err != nil {
				return done, fmt.Errorf("clickhouse: migration %s: %w", m.name, err)
			}
		}
		if err := run("INSERT INTO schema_migrations (version, name) VALUES (?, ?)", m.version, m.name); err != nil {
			return done, fmt.Errorf("clickhouse: record migration %s: %w", m.name, err)
		}
		done.To = m.version
	}
	return done, retain(ctx, &cfg, conn, run)
}

func createDatabase(ctx context.Context, cfg *Config) error {
	conn, err := cfg.open("")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := cfg.bounded(ctx)
	defer cancel()
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+cfg.Database); err != nil { // its name is letters and digits
		return fmt.Errorf("clickhouse: make the database: %w", err)
	}
	return nil
}

// retained are the tables whose rows expire, each with the column of its time.
var retained = map[string]string{"fixes": "device_time", "arrivals": "device_time"}

// retain puts the retention in force: days by device time, whole parts at once.
func retain(ctx context.Context, cfg *Config, conn driver.Conn, run func(string, ...any) error) error {
	for table, column := range retained {
		statement := fmt.Sprintf("ALTER TABLE %s MODIFY TTL toDateTime(%s) + INTERVAL %d DAY", table, column, int64(cfg.Retention/day))
		if cfg.Retention == 0 {
			var made string
			if err := conn.QueryRow(ctx, "SELECT create_table_query FROM system.tables WHERE database = ? AND name = ?", cfg.Database, table).Scan(&made); err != nil {
				return fmt.Errorf("clickhouse: read the definition of %s: %w", table, err)
			}
			if !strings.Contains(made, " TTL ") {
				continue
			}
			statement = fmt.Sprintf("ALTER TABLE %s REMOVE TTL", table)
		}
		if err := run(statement); err != nil {
			return fmt.Errorf("clickhouse: retention of %s: %w", table, err)
		}
	}
	return nil
}

// schemaVersion returns the newest migration that is recorded, 0 for none.
func schemaVersion(ctx context.Context, cfg *Config, conn driver.Conn) (int, error) {
	ctx, cancel := cfg.bounded(ctx)
	defer cancel()
	var version uint32
	err := conn.QueryRow(ctx, "SELECT max(version) FROM schema_migrations").Scan(&version)
	var refusal *ch.Exception
	if errors.As(err, &refusal) && (refusal.Code == unknownTable || refusal.Code == unknownDatabase) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("clickhouse: read the schema's version: %w", err)
	}
	return int(version), nil
}

// Codes of ClickHouse's errors.
const unknownTable, unknownDatabase = 60, 81

// checkSchema fails with ErrSchema unless the tables are this build's.
func checkSchema(ctx context.Context, cfg *Config, conn driver.Conn) error {
	steps, err := all()
	if err != nil {
		return err
	}
	version, err := schemaVersion(ctx, cfg, conn)
	switch {
	case err != nil:
		return err
	case version < len(steps):
		return fmt.Errorf("%w: it is version %d, this build's is %d: run `starling history migrate`", ErrSchema, version, len(steps))
	case version > len(steps):
		return fmt.Errorf("%w: it is version %d, this build's is %d", ErrSchema, version, len(steps))
	}
	return nil
}
