package lake

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// gapDir has a file for each range of records that the lake lacks.
const gapDir = "_gaps"

// WriteGap puts a range of records of a partition on record that the lake will not
// be given, durably: _gaps/gap-<partition>-<first>-<last>.json.
func (s *Sink) WriteGap(ctx context.Context, partition int32, gap *starlingv1.HistoryGap) error {
	file := path.Join(gapDir, fmt.Sprintf("gap-%d-%d-%d.json", partition, gap.First, gap.Last))
	_, err := s.files.put(ctx, file, func(w io.Writer) error {
		return json.NewEncoder(w).Encode(struct {
			Partition int32  `json:"partition"`
			First     int64  `json:"first_offset"`
			Last      int64  `json:"last_offset"`
			Reason    string `json:"reason"`
		}{partition, gap.First, gap.Last, strings.ToLower(strings.TrimPrefix(gap.Reason.String(), "HISTORY_GAP_REASON_"))})
	})
	if err != nil {
		return fmt.Errorf("history lake: write %s: %w", file, err)
	}
	return nil
}
