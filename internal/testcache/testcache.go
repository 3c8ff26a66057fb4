// Package testcache keeps the real servers that tests install in a cache outside the
// repository, $STARLING_CACHE, or starling in the user's cache directory, and starts
// servers that end with the test's process.
//
// For tests alone; imports nothing of ours.
package testcache

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Install returns the directory what within the cache's directory of that name and
// version. If it is not there, fill is called with an empty directory to work in and
// returns the one in there that is kept: it is renamed as a whole, so that an
// interrupted installation is never taken for a full one. Processes that install at
// once wait for each other.
func Install(name, version, what string, fill func(work string) (kept string, err error)) (dir string, err error) {
	cache, err := cacheDir(name + "-" + version)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("create the cache of %s: %w", name, err)
	}
	unlock, err := lockFile(filepath.Join(cache, "install.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	dir = filepath.Join(cache, what)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(cache, "install-")
	if err != nil {
		return "", fmt.Errorf("create a work directory for %s: %w", name, err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	kept, err := fill(work)
	if err != nil {
		return "", err
	}
	if err := os.Rename(kept, dir); err != nil {
		return "", fmt.Errorf("keep %s: %w", name, err)
	}
	return dir, nil
}

func cacheDir(name string) (string, error) {
	if dir := os.Getenv("STARLING_CACHE"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory, set STARLING_CACHE: %w", err)
	}
	return filepath.Join(dir, "starling", name), nil
}

// lockFile takes an advisory lock that the kernel releases when the process dies.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of an installation: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
