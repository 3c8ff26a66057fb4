package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxKeysBytes bounds a file or an answer with keys.
	maxKeysBytes = 1 << 20
	// fetchTimeout bounds a read of the JWKS.
	fetchTimeout = 10 * time.Second
	// nudgeInterval is the least time between two reads of the keys for the sake
	// of tokens whose kid is not known.
	nudgeInterval = 10 * time.Second
)

// keyring holds the keys that the server believes, and reads them again. It is
// safe for concurrent use.
type keyring struct {
	cfg    Config
	logger *slog.Logger
	client *http.Client
	now    func() time.Time

	byID atomic.Pointer[map[string]*key]
	// readAt is when the keys were last read whole, in Unix nanoseconds.
	readAt  atomic.Int64
	unknown chan struct{} // asks for a read because a kid is not known
	reading sync.Mutex    // held while the keys are read and changed
	failed  atomic.Int64  // reads that failed
	reads   atomic.Int64
	// passedOver counts keys that were read and can't be used; the last faults are
	// those logged last, so that the same ones are logged once.
	passedOver atomic.Int64
	lastFaults string
}

func newKeyring(cfg Config, logger *slog.Logger, now func() time.Time) *keyring {
	r := &keyring{cfg: cfg, logger: logger, now: now, client: &http.Client{Timeout: fetchTimeout, CheckRedirect: sameScheme}, unknown: make(chan struct{}, 1)}
	r.byID.Store(&map[string]*key{})
	return r
}

// sameScheme lets no redirect lead to where keys may not be read from.
func sameScheme(req *http.Request, via []*http.Request) error {
	if len(via) > 3 || !fetchable(req.URL.String()) {
		return errors.New("the JWKS redirects to an address that keys may not be read from")
	}
	return nil
}

// find returns the key with an id, or the only key if the token names none.
func (r *keyring) find(id string) *key {
	keys := *r.byID.Load()
	if id == "" && len(keys) == 1 {
		for _, k := range keys {
			return k
		}
	}
	return keys[id]
}

// current reports whether the keys were read lately enough to count.
func (r *keyring) current(now time.Time) bool {
	return now.Sub(time.Unix(0, r.readAt.Load())) <= r.cfg.KeepKeys
}

func (r *keyring) age() time.Duration { return r.now().Sub(time.Unix(0, r.readAt.Load())) }

// nudge asks for a read out of turn.
func (r *keyring) nudge() {
	select {
	case r.unknown <- struct{}{}:
	default:
	}
}

// read reads all keys, puts them in the place of the former ones and marks those
// that are gone. When it fails, nothing changes.
func (r *keyring) read(ctx context.Context) error {
	r.reading.Lock()
	defer r.reading.Unlock()
	r.reads.Add(1)
	began := r.now()
	keys, faults, err := r.readAll(ctx)
	if err != nil {
		r.failed.Add(1)
		return err
	}
	before, now := *r.byID.Load(), map[string]*key{}
	for _, k := range keys {
		if first, twice := now[k.id]; twice {
			if first.print != k.print {
				faults = append(faults, errTwoKeys(k.id))
			}
			continue
		}
		now[k.id] = k
		if old := before[k.id]; old != nil && old.print == k.print {
			now[k.id] = old
		}
	}
	r.note(faults)
	r.byID.Store(&now)
	r.readAt.Store(began.UnixNano())
	for id, old := range before {
		if now[id] != old {
			old.remove()
			r.logger.Info("a key of tokens is not among the server's any more", "kid", id)
		}
	}
	return nil
}

// note counts the keys that are passed over, and logs them when they are others than
// the last time. The lock of reads is held.
func (r *keyring) note(faults []error) {
	r.passedOver.Add(int64(len(faults)))
	text := ""
	if len(faults) > 0 {
		text = errors.Join(faults...).Error()
	}
	if text != r.lastFaults && text != "" {
		r.logger.Warn("keys of tokens can't be used and are passed over; the others count", "keys", len(faults), "error", text)
	}
	r.lastFaults = text
}

func (r *keyring) readAll(ctx context.Context) (keys []*key, faults []error, err error) {
	add := func(name string, data []byte, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		more, bad, err := parseKeys(data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, more...)
		for _, fault := range bad {
			faults = append(faults, fmt.Errorf("%s: %w", name, fault))
		}
		return nil
	}
	if file := r.cfg.KeysFile; file != "" {
		data, err := readSmall(file)
		if err := add("auth.keys_file "+file, data, err); err != nil {
			return nil, nil, err
		}
	}
	if r.cfg.JWKSURL != "" {
		data, err := r.fetch(ctx)
		if err := add("auth.jwks_url", data, err); err != nil {
			return nil, nil, err
		}
	}
	if file := r.cfg.DevSecretFile; file != "" {
		secret, err := readSecret(file)
		if err != nil {
			return nil, nil, fmt.Errorf("auth.dev_secret_file: %w", err)
		}
		k, err := newKey(DevKeyID, secret)
		if err != nil {
			return nil, nil, err
		}
		keys = append(keys, k)
	}
	return keys, faults, nil
}

// DevKeyID is the kid of development tokens.
const DevKeyID = "dev"

func (r *keyring) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.cfg.JWKSURL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	return readBounded(resp.Body)
}

// run reads the keys again and again until ctx is done. Changed is called after
// each read.
func (r *keyring) run(ctx context.Context, changed func()) {
	ticker := time.NewTicker(r.cfg.RefreshInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-r.unknown:
			if r.age() < nudgeInterval {
				continue
			}
		}
		if err := r.read(ctx); err != nil && ctx.Err() == nil {
			r.logger.Warn("the keys of tokens can't be read; the last ones count for a while", "error", err, "age", r.age().String(), "keep_keys", r.cfg.KeepKeys.String())
		}
		changed()
	}
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readBounded(f)
}

func readBounded(from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxKeysBytes+1))
	if err == nil && len(data) > maxKeysBytes {
		err = fmt.Errorf("it has more than %d bytes", maxKeysBytes)
	}
	return data, err
}

// readSecret reads a secret from a file, without white space around it.
func readSecret(path string) ([]byte, error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	if data = bytes.TrimSpace(data); len(data) < minSecretBytes {
		return nil, fmt.Errorf("%s has %d bytes: must have at least %d", path, len(data), minSecretBytes)
	}
	return data, nil
}
