// Package version is which build this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Info describes a build.
type Info struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// release is set by the linker: -X .../internal/version.release=v1.2.3.
var release = "development"

// revision may be set by the linker when the build does not stamp it.
var revision = ""

// Read returns this build's description.
func Read() Info {
	info := Info{Version: release, Revision: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	return info
}

// String is the description in one line.
func (i Info) String() string {
	rev := i.Revision
	if rev == "" {
		rev = "unknown revision"
	} else if len(rev) > 12 {
		rev = rev[:12]
	}
	if i.Modified {
		rev += " (modified)"
	}
	return fmt.Sprintf("starling %s, %s, %s, %s", i.Version, rev, i.Go, i.Platform)
}
