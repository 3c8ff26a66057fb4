package filtereval

import (
	"io"
	"os"
	"path/filepath"

	"github.com/starling-fleet/starling/gpsfilter"
)

// Folder evaluates f on the drives of a folder and prints the table. If the
// folder has the folders truth, drives and quirks, it evaluates all of them.
func Folder(w io.Writer, dir string, f *gpsfilter.Filter, verbose bool) error {
	truth, drives, quirks := filepath.Join(dir, "truth"), filepath.Join(dir, "drives"), filepath.Join(dir, "quirks")
	if info, err := os.Stat(truth); err != nil || !info.IsDir() {
		streams, err := LoadDir(dir)
		if err != nil {
			return err
		}
		NewSuite(streams, 0).Judge(Starling(f)).Print(w, verbose)
		return nil
	}
	q, err := LoadQuirks(quirks)
	if err != nil {
		return err
	}
	PrintQuirks(w, append(q, Siblings(0)...), Starling(f))
	suite, err := LoadSuite(truth, drives)
	if err != nil {
		return err
	}
	suite.Judge(Starling(f)).Print(w, verbose)
	return nil
}
