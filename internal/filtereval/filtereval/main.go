// Command filtereval prints what gpsfilter shows on all drives with truth, clean
// and with injected faults, and on quirks; fits its constants, in-fold and
// out-of-fold; and writes the plots and the table of constants of its
// documentation.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/filtereval"
)

type options struct {
	data, only, plots, constants string
	verbose                      bool
	fit, gap                     int
	set                          []string
}

func main() {
	var o options
	flag.StringVar(&o.data, "data", "../shared/data", "folder with truth, drives and quirks")
	flag.BoolVar(&o.verbose, "v", false, "print each stream's figures")
	flag.IntVar(&o.fit, "fit", 0, "fit the constants in at most so many sweeps, and print them and what they show")
	flag.StringVar(&o.only, "only", "", "the constants to fit, with commas between; all fitted ones when empty")
	flag.IntVar(&o.gap, "gap", 0, "print the table, then fit in-fold and out-of-fold in at most so many sweeps, and print the gap")
	flag.StringVar(&o.plots, "plots", "", "folder to draw the documentation's plots into, instead")
	flag.StringVar(&o.constants, "constants", "", "file to write the table of constants into, instead")
	flag.Func("set", "NAME=VALUE of a constant, as often as needed", func(v string) error {
		o.set = append(o.set, v)
		return nil
	})
	flag.Parse()
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (o *options) run() error {
	f, err := o.filter()
	if err != nil {
		return err
	}
	truth, drives := filepath.Join(o.data, "truth"), filepath.Join(o.data, "drives")
	if o.plots != "" {
		return plots(truth, o.plots)
	}
	streams, err := filtereval.LoadDir(truth, drives)
	if err != nil {
		return err
	}
	if o.constants != "" {
		var b bytes.Buffer
		if err := filtereval.WriteConstants(&b, streams, f); err != nil {
			return err
		}
		return os.WriteFile(o.constants, b.Bytes(), 0o644)
	}
	if o.fit > 0 {
		var only []string
		if o.only != "" {
			only = strings.Split(o.only, ",")
		}
		if f, err = filtereval.Fit(os.Stdout, streams, f, o.fit, only); err != nil {
			return err
		}
	}
	if err := filtereval.Folder(os.Stdout, o.data, f, o.verbose); err != nil || o.gap == 0 {
		return err
	}
	return filtereval.Gap(os.Stdout, streams, f, o.gap)
}

// filter is the filter with the constants that were set.
func (o *options) filter() (*gpsfilter.Filter, error) {
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	if err != nil {
		return nil, err
	}
	for _, s := range o.set {
		name, text, _ := strings.Cut(s, "=")
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("-set %s: %w", s, err)
		}
		if f, err = f.With(name, v); err != nil {
			return nil, err
		}
	}
	return f, nil
}
