// Command filtereval prints what gpsfilter shows on all drives with truth,
// clean and with injected faults, and draws the plots of its documentation.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/starling-fleet/starling/internal/filtereval"
)

func main() {
	dir := flag.String("dir", "../shared/data/truth", "folder of NAME.csv.gz and NAME.truth.csv.gz")
	lag := flag.Duration("lag", 0, "judge the smoothed points of this lag instead of the live ones")
	plots := flag.String("plots", "", "folder to draw the documentation's plots into, instead of printing the table")
	verbose := flag.Bool("v", false, "print each stream's figures")
	flag.Parse()
	var err error
	if *plots != "" {
		err = filtereval.Plots(*dir, *plots)
	} else {
		err = filtereval.Dir(os.Stdout, *dir, lag.Milliseconds(), *verbose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
