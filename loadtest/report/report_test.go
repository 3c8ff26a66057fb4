package report

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type result struct {
	Figure float64 `json:"figure"`
}

func (r result) String() string { return "figure 3\n" }

func (r result) Misses() []string { return []string{"the figure is 3, the goal is 4"} }

func TestReportNamesWhatIsNeededToRepeatIt(t *testing.T) {
	m := ThisMachine(t.Context(), nil, "server and load generator")
	require.Equal(t, runtime.NumCPU(), m.Cores)
	r := New([]string{"bench", "figure", "-rounds", "3"}, m, result{3})
	var text, encoded bytes.Buffer
	require.NoError(t, r.WriteText(&text))
	require.NoError(t, r.WriteJSON(&encoded))
	for _, part := range []string{"`bench figure -rounds 3` on ", m.CPUModel, runtime.Version(), "cores shared by server and load generator", "unknown build", "figure 3\n", "MISSED: the figure is 3, the goal is 4."} {
		require.Contains(t, text.String(), part)
	}
	var back map[string]any
	require.NoError(t, json.Unmarshal(encoded.Bytes(), &back))
	require.Equal(t, "bench figure -rounds 3", back["command"])
	require.Equal(t, map[string]any{"figure": 3.0}, back["result"])
	require.Len(t, back["misses"], 1)
}

// The test binary lists its tests instead of its version: what it prints is
// what counts here.
func TestBuildDescribesItself(t *testing.T) {
	m := ThisMachine(t.Context(), []string{"echo", "starling 1.2.3,"}, "")
	require.Equal(t, "starling 1.2.3, version", m.Starling)
	m = ThisMachine(t.Context(), []string{"/nonexistent/starling"}, "")
	require.Equal(t, "unknown build", m.Starling)
}

func TestMachineIsReadFromProc(t *testing.T) {
	require.Equal(t, "Intel(R) Xeon(R) Processor", cpuModel("processor\t: 0\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Processor\nprocessor : 1\nmodel name : Other\n"))
	require.Equal(t, "Arm implementer 0x41 part 0xd40", cpuModel("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"))
	require.Equal(t, "unknown CPU", cpuModel(""))
	require.EqualValues(t, 16384<<10, memoryBytes("Buffers: 1 kB\nMemTotal:       16384 kB\n"))
	require.Zero(t, memoryBytes("MemTotal: much\n"))
	if _, err := os.Stat("/proc/meminfo"); err == nil {
		require.Positive(t, ThisMachine(t.Context(), nil, "").MemoryBytes)
	}
}

func TestMedian(t *testing.T) {
	same := func(d time.Duration) time.Duration { return d }
	require.Equal(t, 3*time.Second, Median([]time.Duration{9 * time.Second, time.Second, 3 * time.Second}, same))
	require.Equal(t, 2*time.Second, Median([]time.Duration{3 * time.Second, time.Second}, same))
	require.Zero(t, Median(nil, same))
	require.InDelta(t, 1.5, Micros(1500), 1e-9)
}
