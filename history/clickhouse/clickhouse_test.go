package clickhouse_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// settings names a server that a test runs.
func settings(s *clickhousetest.Server, protocol string) clickhouse.Config {
	cfg := clickhouse.DefaultConfig()
	cfg.Protocol, cfg.Addrs, cfg.Username, cfg.Password = protocol, []string{s.Addr()}, clickhousetest.User, config.Secret(clickhousetest.Password)
	if protocol == "http" {
		cfg.Addrs = []string{s.HTTPAddr()}
	}
	return cfg
}

// migrated returns a server with the tables of history and how to reach it.
func migrated(t *testing.T) (*clickhousetest.Server, clickhouse.Config) {
	t.Helper()
	s := clickhousetest.Start(t)
	cfg := settings(s, "native")
	_, err := clickhouse.Migrate(t.Context(), cfg)
	require.NoError(t, err)
	return s, cfg
}

func sinkOf(t *testing.T, cfg clickhouse.Config) *clickhouse.Sink {
	t.Helper()
	s, err := clickhouse.NewSink(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func storeOf(t *testing.T, cfg clickhouse.Config) *clickhouse.Store {
	t.Helper()
	s, err := clickhouse.NewStore(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// sql is a connection of the test's own, to judge by.
func sql(t *testing.T, s *clickhousetest.Server) ch.Conn {
	t.Helper()
	c, err := ch.Open(&ch.Options{Addr: []string{s.Addr()}, Auth: ch.Auth{Database: "starling", Username: clickhousetest.User, Password: clickhousetest.Password}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func count(t *testing.T, c ch.Conn, query string) (n uint64) {
	t.Helper()
	require.NoError(t, c.QueryRow(t.Context(), query).Scan(&n))
	return n
}

// startMS is a minute before midnight, so that batches go over hours and days.
var startMS = time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC).UnixMilli()

// fixes makes rows of every kind and shape, with several rows for many fixes.
func fixes(seed uint64, partition int32, vehicles, seconds int) []row.Fix {
	r := rand.New(rand.NewPCG(seed, 0))
	var out []row.Fix
	for v := range vehicles {
		for i := range seconds {
			for k := row.Final; k <= row.SetAside; k++ {
				if r.IntN(2) == 0 {
					continue
				}
				f := row.Fix{
					Vehicle: fmt.Sprintf("car-%d-%d", partition, v), DeviceTimeMS: startMS + int64(i)*1000 + int64(v), Epoch: 1 + int64(r.IntN(2)), Partition: partition,
					SourceOffset: int64(i*vehicles + v), Kind: k, Has: row.Has(r.IntN(256)),
					Raw: row.Position{LatE7: 302672000 + int32(r.IntN(1e6)), LonE7: -977431000 - int32(r.IntN(1e6))},
				}
				if k >= row.Late {
					f.Has &^= row.HasEstimate | row.HasSpeed | row.HasHeading
				}
				set := func(bit row.Has, to *int32, most int) {
					if f.Has&bit != 0 {
						*to = int32(r.IntN(most))
					}
				}
				set(row.HasRawSpeed, &f.RawSpeedCMPS, 4000)
				set(row.HasRawHeading, &f.RawHeadingDDeg, 3600)
				set(row.HasAccuracy, &f.AccuracyDM, 1000)
				set(row.HasAltitude, &f.AltitudeDM, 10000)
				set(row.HasSpeed, &f.SpeedCMPS, 4000)
				set(row.HasHeading, &f.HeadingDDeg, 3600)
				f.Mocked = f.Has&row.HasMocked != 0
				if f.Has&row.HasEstimate != 0 {
					f.Verdict = starlingv1.Verdict(1 + r.IntN(7))
					f.Corrected = row.Position{LatE7: f.Raw.LatE7 + int32(r.IntN(1000)), LonE7: f.Raw.LonE7 - int32(r.IntN(1000))}
					f.Display = row.Position{LatE7: -900000000, LonE7: 1799999999} // a difference that no int32 holds
				}
				out = append(out, f)
			}
		}
	}
	return out
}

// batches divides rows into batches in a random order, some of them twice.
func batches(seed uint64, rows []row.Fix) []*row.Batch {
	r := rand.New(rand.NewPCG(seed, 1))
	rows = slices.Clone(rows)
	r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	var out []*row.Batch
	for first := int64(0); len(rows) > 0; first += 1000 {
		n := min(len(rows), 1+r.IntN(len(rows)/2+1))
		b := &row.Batch{Partition: rows[0].Partition, Epoch: 1, First: first, Last: first + 999, Rows: row.Dedup(slices.Clone(rows[:n]))}
		out = append(out, b)
		if r.IntN(2) == 0 {
			out = append(out, b)
		}
		rows = rows[n:]
	}
	return out
}

func requireTracks(t *testing.T, s store.Store, rows []row.Fix) {
	t.Helper()
	want := map[string][]row.Fix{}
	for _, f := range row.Dedup(slices.Clone(rows)) {
		want[f.Vehicle] = append(want[f.Vehicle], f)
	}
	for vehicle, fixes := range want {
		var got []row.Fix
		for f, err := range s.Track(t.Context(), store.TrackQuery{Vehicle: vehicle, FromMS: 0, ToMS: 1 << 42}) {
			require.NoError(t, err)
			got = append(got, f)
		}
		requireSame(t, fixes, got)
	}
}

// requireSame fails at the first row that differs.
func requireSame[T comparable](t *testing.T, want, got []T) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		require.Equal(t, want[i], got[i], "number %d", i)
	}
	require.Equal(t, len(want), len(got))
}

// Rows of every kind, several for a fix, written in any order and more than once over
// either protocol, read back as each fix once: the truth, with the same values.
func TestEachFixIsReadOnceWhateverTheOrderOfWrites(t *testing.T) {
	s, cfg := migrated(t)
	rows := fixes(1, 3, 4, 120)
	for i, b := range batches(1, rows) {
		sink := sinkOf(t, settings(s, []string{"native", "http"}[i%2]))
		w, err := sink.Write(t.Context(), b)
		require.NoError(t, err)
		require.Positive(t, w.Files)
	}
	requireTracks(t, storeOf(t, cfg), rows)
	requireTracks(t, storeOf(t, settings(s, "http")), rows)
	c := sql(t, s)
	truth := uint64(len(row.Dedup(slices.Clone(rows))))
	require.NoError(t, c.Exec(t.Context(), "OPTIMIZE TABLE fixes FINAL"))
	require.Equal(t, truth, count(t, c, "SELECT count() FROM fixes"), "merges leave each fix once")
}

func TestARangeOfATrackIsHalfOpen(t *testing.T) {
	_, cfg := migrated(t)
	rows := fixes(2, 0, 2, 90)
	for _, b := range batches(2, rows) {
		_, err := sinkOf(t, cfg).Write(t.Context(), b)
		require.NoError(t, err)
	}
	s := storeOf(t, cfg)
	truth := row.Dedup(slices.Clone(rows))
	from, to := startMS+7000, startMS+70_000
	var want, got []row.Fix
	for _, f := range truth {
		if f.Vehicle == "car-0-0" && f.DeviceTimeMS >= from && f.DeviceTimeMS < to {
			want = append(want, f)
		}
	}
	for f, err := range s.Track(t.Context(), store.TrackQuery{Vehicle: "car-0-0", FromMS: from, ToMS: to}) {
		require.NoError(t, err)
		got = append(got, f)
	}
	requireSame(t, want, got)
	for range s.Track(t.Context(), store.TrackQuery{Vehicle: "nobody", FromMS: 0, ToMS: 1 << 42}) {
		t.Fatal("a vehicle that is not there has no fixes")
	}
}

// A batch that is written again when its token has long been forgotten shows nothing
// twice.
func TestWrittenAgainBeyondTheDeduplicationWindow(t *testing.T) {
	s, cfg := migrated(t)
	c := sql(t, s)
	require.NoError(t, c.Exec(t.Context(), "ALTER TABLE fixes MODIFY SETTING non_replicated_deduplication_window = 2"))
	sink := sinkOf(t, cfg)
	first := &row.Batch{Partition: 0, Epoch: 1, First: 0, Last: 9, Rows: row.Dedup(fixes(3, 0, 2, 30))}
	inserted := func() uint64 { return count(t, c, "SELECT count() FROM fixes") }
	write := func(b *row.Batch) {
		_, err := sink.Write(t.Context(), b)
		require.NoError(t, err)
	}
	require.NoError(t, c.Exec(t.Context(), "SYSTEM STOP MERGES fixes"))
	write(first)
	n := inserted()
	write(first)
	require.Equal(t, n, inserted(), "within the window a token spares the insert")
	rows := slices.Clone(first.Rows)
	for i := range int64(5) {
		b := &row.Batch{Partition: 1, Epoch: 1, First: i * 10, Last: i*10 + 9, Rows: row.Dedup(fixes(uint64(10+i), int32(10+i), 1, 90))}
		write(b)
		rows = append(rows, b.Rows...)
	}
	n = inserted()
	write(first)
	require.Greater(t, inserted(), n, "behind it the rows are there twice")
	requireTracks(t, storeOf(t, cfg), rows)
	require.Equal(t, uint64(len(rows)), count(t, c, "SELECT count() FROM fixes FINAL"))
}

// A process that dies between the inserts of two days leaves a batch in part; its
// successor writes the same batch.
func TestKilledBetweenTwoPartitions(t *testing.T) {
	s, cfg := migrated(t)
	c := sql(t, s)
	b := &row.Batch{Partition: 0, Epoch: 1, First: 0, Last: 9, Rows: row.Dedup(fixes(4, 0, 3, 120))}
	dying := sinkOf(t, cfg)
	dead, inserts := errors.New("dead"), 0
	dying.SetStep(func(string) error {
		if inserts++; inserts == 2 {
			return dead
		}
		return nil
	})
	_, err := dying.Write(t.Context(), b)
	require.ErrorIs(t, err, dead)
	require.Equal(t, uint64(1), count(t, c, "SELECT uniqExact(toDate(device_time)) FROM fixes"), "one of the two days is there")
	s.Kill()
	_, err = sinkOf(t, cfg).Write(t.Context(), b)
	require.Error(t, err)
	require.NoError(t, s.Restart())
	_, err = sinkOf(t, cfg).Write(t.Context(), b)
	require.NoError(t, err)
	requireTracks(t, storeOf(t, cfg), b.Rows)
	require.Equal(t, uint64(len(b.Rows)), count(t, sql(t, s), "SELECT count() FROM fixes FINAL"))
}

func TestMigrations(t *testing.T) {
	s := clickhousetest.Start(t)
	cfg := settings(s, "native")
	b := &row.Batch{Partition: 0, Epoch: 1, First: 0, Last: 9, Rows: row.Dedup(fixes(5, 0, 1, 10))}
	// The engine that tests have dies when a client names a database that is not there,
	// which a server answers with an error.
	bare, err := ch.Open(&ch.Options{Addr: []string{s.Addr()}, Auth: ch.Auth{Username: clickhousetest.User, Password: clickhousetest.Password}})
	require.NoError(t, err)
	defer func() { _ = bare.Close() }()
	require.NoError(t, bare.Exec(t.Context(), "CREATE DATABASE starling"))
	_, err = sinkOf(t, cfg).Write(t.Context(), b)
	require.ErrorIs(t, err, clickhouse.ErrSchema)
	require.ErrorContains(t, err, "starling history migrate")

	done, err := clickhouse.Migrate(t.Context(), cfg)
	require.NoError(t, err)
	require.Zero(t, done.From)
	require.Positive(t, done.To)
	again, err := clickhouse.Migrate(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, clickhouse.Migrated{From: done.To, To: done.To}, again)

	c := sql(t, s)
	definition := func() (text string) {
		require.NoError(t, c.QueryRow(t.Context(), "SELECT create_table_query FROM system.tables WHERE database = 'starling' AND name = 'fixes'").Scan(&text))
		return text
	}
	cfg.Retention = 30 * 24 * time.Hour
	_, err = clickhouse.Migrate(t.Context(), cfg)
	require.NoError(t, err)
	require.Contains(t, definition(), "toIntervalDay(30)")
	cfg.Retention = 0
	_, err = clickhouse.Migrate(t.Context(), cfg)
	require.NoError(t, err)
	require.NotContains(t, definition(), "toIntervalDay")

	// A crash behind the statements of the last migration, before it was recorded.
	require.NoError(t, c.Exec(t.Context(), "TRUNCATE TABLE schema_migrations"))
	for version := 1; version < done.To; version++ {
		require.NoError(t, c.Exec(t.Context(), "INSERT INTO schema_migrations (version, name) VALUES (?, '')", version))
	}
	_, err = clickhouse.Migrate(t.Context(), cfg)
	require.NoError(t, err)

	require.NoError(t, c.Exec(t.Context(), "INSERT INTO schema_migrations (version, name) VALUES (99, 'of the future')"))
	_, err = clickhouse.Migrate(t.Context(), cfg)
	require.ErrorIs(t, err, clickhouse.ErrSchema)
	_, err = sinkOf(t, cfg).Write(t.Context(), b)
	require.ErrorIs(t, err, clickhouse.ErrSchema)
}

func TestAGapIsOnRecord(t *testing.T) {
	s, cfg := migrated(t)
	sink := sinkOf(t, cfg)
	for range 2 {
		require.NoError(t, sink.WriteGap(t.Context(), 7, &starlingv1.HistoryGap{First: 5, Last: 9, Reason: starlingv1.HistoryGapReason_HISTORY_GAP_REASON_SINK_BEHIND}))
	}
	require.Equal(t, uint64(1), count(t, sql(t, s), "SELECT count() FROM gaps FINAL WHERE partition = 7 AND first_offset = 5 AND last_offset = 9 AND reason = 'sink_behind'"))
}

func TestNumbersThatNoRankHoldsAreRefused(t *testing.T) {
	_, cfg := migrated(t)
	for _, b := range []*row.Batch{{Epoch: 1 << 16}, {Epoch: 1, Last: 1 << 44}, {Epoch: 1, Rows: []row.Fix{{SourceOffset: 1 << 44}}}} {
		_, err := sinkOf(t, cfg).Write(t.Context(), b)
		require.ErrorContains(t, err, "beyond")
	}
}

func TestConfigNamesItsFaults(t *testing.T) {
	c := clickhouse.DefaultConfig()
	require.NoError(t, c.Validate())
	require.False(t, c.On())
	for field, set := range map[string]func(*clickhouse.Config){
		"addrs":           func(c *clickhouse.Config) { c.Addrs = []string{"nowhere"} },
		"protocol":        func(c *clickhouse.Config) { c.Protocol = "smtp" },
		"database":        func(c *clickhouse.Config) { c.Database = "a; DROP" },
		"password_file":   func(c *clickhouse.Config) { c.Password, c.PasswordFile = "x", "y" },
		"tls":             func(c *clickhouse.Config) { c.TLSCAFile = "ca.pem" },
		"tls_cert_file":   func(c *clickhouse.Config) { c.TLS, c.TLSCertFile = true, "c.pem" },
		"retention":       func(c *clickhouse.Config) { c.Retention = time.Hour },
		"rollup_interval": func(c *clickhouse.Config) { c.RollupInterval = time.Millisecond },
	} {
		c := clickhouse.DefaultConfig()
		set(&c)
		require.ErrorContains(t, c.Validate(), field)
	}
}

// An erasure deletes a vehicle's rows from both tables, later writes bring none back, and
// statistics follow. A crash at any step of it leaves what a repetition finishes.
func TestAnErasedVehicleStaysErased(t *testing.T) {
	server, cfg := migrated(t)
	sink, s, judge := sinkOf(t, cfg), storeOf(t, cfg), sql(t, server)
	rows := row.Dedup(fixes(31, 3, 4, 90))
	for i := range rows {
		rows[i].Has |= row.HasArrival
		rows[i].Session, rows[i].Sequence, rows[i].ArrivalOffset = 1<<63, int64(i), int64(i)
	}
	b := &row.Batch{Partition: 3, Epoch: 1, First: 0, Last: 1000, Rows: rows}
	_, err := sink.Write(t.Context(), b)
	require.NoError(t, err)
	_, err = sink.Rollup(t.Context(), all)
	require.NoError(t, err)

	e := row.Erasure{Vehicle: "car-3-1", UntilMS: startMS + 70_000, Partition: 3, Epoch: 1, Offset: 77} // behind midnight
	kept := slices.DeleteFunc(slices.Clone(rows), func(f row.Fix) bool { return f.Vehicle == e.Vehicle && f.DeviceTimeMS < e.UntilMS })
	require.Less(t, len(kept), len(rows))
	died := errors.New("dead")
	for _, at := range []string{"erase fixes", "erase arrivals", "touch"} {
		dying := sinkOf(t, cfg)
		dying.SetStep(func(name string) error {
			if name == at {
				return died
			}
			return nil
		})
		_, err := dying.Erase(t.Context(), e)
		require.ErrorIs(t, err, died)
		_, err = sink.Rollup(t.Context(), all)
		require.NoError(t, err)
	}
	erased, err := sink.Erase(t.Context(), e)
	require.NoError(t, err)
	require.Equal(t, int64(2*(len(rows)-len(kept))), erased.Rows)
	_, err = sink.Write(t.Context(), b)
	require.NoError(t, err)
	for _, table := range []string{"fixes", "arrivals"} {
		require.Zero(t, count(t, judge, "SELECT count() FROM "+table+" WHERE vehicle_id = 'car-3-1' AND device_time < fromUnixTimestamp64Milli(toInt64("+fmt.Sprint(e.UntilMS)+"))"), table)
	}
	bare := slices.Clone(kept)
	for i := range bare {
		bare[i] = bare[i].Bare()
	}
	requireTracks(t, s, bare)
	_, err = sink.Rollup(t.Context(), all)
	require.NoError(t, err)
	requireStats(t, s, bare)
	require.Equal(t, uint64(1), count(t, judge, "SELECT count() FROM erasures FINAL WHERE vehicle_id = 'car-3-1' AND erased_at > toDateTime(0)"))
}
