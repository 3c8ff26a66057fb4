package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/httpserver"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/internal/locallog/backup"
)

// controlName is the socket in a local log's directory through which the commands
// that work on a log in use reach its process. Who may use it is who may write to
// the directory, which is for its owner only; no address of the network has it.
const controlName = "control"

// maxSocketPath is what a socket's address takes on every system.
const maxSocketPath = 100

// BackupRequest is what a process is asked for.
type BackupRequest struct {
	// To is the directory to make, an absolute path.
	To string `json:"to"`
}

// controlPath is the socket's path. A long one is reached through the directory's
// descriptor, where the system has that; release closes it.
func controlPath(dir string) (path string, release func(), err error) {
	path = filepath.Join(dir, controlName)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), controlName), func() { _ = f.Close() }, nil
}

// controlUnit serves the socket of a local log's directory; nil for other logs.
// Without it the process serves all the same: backups wait for the next start.
func (a *App) controlUnit(log eventlog.Log) []unit {
	local, ok := log.(*locallog.Log)
	if !ok {
		return nil
	}
	l, err := listenControl(a.cfg.Local.Directory)
	if err != nil {
		a.logger.Warn("the control socket can't be opened: the log can't be backed up while it is in use", "error", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /backup", func(w http.ResponseWriter, r *http.Request) { backUp(w, r, local) })
	return []unit{{"control socket", func(ctx context.Context) error {
		return a.http.Serve(ctx, l, mux, httpserver.Options{Name: "control", ReadTimeout: 5 * time.Second, IdleTimeout: time.Minute})
	}}}
}

func listenControl(dir string) (net.Listener, error) {
	path, release, err := controlPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	// The directory's lock is ours, so a socket that is there has no process.
	if err := os.Remove(filepath.Join(dir, controlName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(filepath.Join(dir, controlName), 0o600)
}

func backUp(w http.ResponseWriter, r *http.Request, log *locallog.Log) {
	var request BackupRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&request); err != nil || !filepath.IsAbs(request.To) {
		http.Error(w, "to: must be an absolute path", http.StatusBadRequest)
		return
	}
	m, err := log.Backup(r.Context(), filepath.Clean(request.To))
	switch {
	case errors.Is(err, backup.ErrNotEmpty), errors.Is(err, locallog.ErrBackupRunning):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m)
	}
}

// ErrNotServed reports that no process serves the log of a directory.
var ErrNotServed = errors.New("no process that serves this log can be reached")

// RequestBackup asks the process that uses the log in a directory for a backup, and
// waits until it is made.
func RequestBackup(ctx context.Context, dir, to string) (*backup.Manifest, error) {
	path, release, err := controlPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotServed, err)
		}
		return conn, nil
	}}}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(BackupRequest{To: to})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://control/backup", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
		return nil, errors.Join(errors.New(strings.TrimSpace(string(text))), err)
	}
	m := &backup.Manifest{}
	if err := json.NewDecoder(answer.Body).Decode(m); err != nil {
		return nil, fmt.Errorf("the answer can't be read: %w", err)
	}
	return m, nil
}
