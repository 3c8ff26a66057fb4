package kafkatest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/starling-fleet/starling/internal/testcache"
)

// node is one broker, which is also a controller.
type node struct {
	id             int
	dir            string
	brokerPort     int
	controllerPort int
	heapMB         int
	measured       bool // by Options
	libDir         string
	env            []string // of the broker, besides this process's

	cmd    *exec.Cmd
	exited <-chan struct{} // closed when the running process has ended
}

// log4j2 writes warnings to standard output, which goes to the node's log.
const log4jConfig = `status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
`

func (n *node) address() string { return fmt.Sprintf("127.0.0.1:%d", n.brokerPort) }

func (n *node) configFile() string { return filepath.Join(n.dir, "server.properties") }

func (n *node) logFile() string { return filepath.Join(n.dir, "server.log") }

// writeConfig writes server.properties. Replication of the internal topics
// follows the number of nodes; extra lines come last and so override.
func (n *node) writeConfig(voters string, nodes int, extra map[string]string) error {
	replication, minISR := 1, 1
	if nodes >= 3 {
		replication, minISR = 3, 2
	}
	var b strings.Builder
	fmt.Fprintf(&b, "process.roles=broker,controller\nnode.id=%d\n", n.id)
	fmt.Fprintf(&b, "controller.quorum.voters=%s\n", voters)
	fmt.Fprintf(&b, "listeners=BROKER://%s,CONTROLLER://127.0.0.1:%d\n", n.address(), n.controllerPort)
	fmt.Fprintf(&b, "advertised.listeners=BROKER://%s\ninter.broker.listener.name=BROKER\n", n.address())
	b.WriteString("controller.listener.names=CONTROLLER\n")
	b.WriteString("listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT\n")
	fmt.Fprintf(&b, "log.dirs=%s\n", filepath.Join(n.dir, "data"))
	fmt.Fprintf(&b, "offsets.topic.replication.factor=%d\noffsets.topic.num.partitions=3\n", replication)
	fmt.Fprintf(&b, "transaction.state.log.replication.factor=%d\ntransaction.state.log.min.isr=%d\n", replication, minISR)
	b.WriteString("transaction.state.log.num.partitions=3\nshare.coordinator.state.topic.num.partitions=1\n")
	fmt.Fprintf(&b, "share.coordinator.state.topic.replication.factor=%d\nshare.coordinator.state.topic.min.isr=%d\n", replication, minISR)
	b.WriteString("group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\nauto.create.topics.enable=false\nnum.io.threads=4\nnum.network.threads=2\n")
	b.WriteString("log.cleaner.backoff.ms=500\nlog.retention.check.interval.ms=500\nlog.initial.task.delay.ms=500\n")
	for k, v := range extra {
		fmt.Fprintf(&b, "%s=%s\n", k, v)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "log4j2.properties"), []byte(log4jConfig), 0o644); err != nil {
		return err
	}
	return os.WriteFile(n.configFile(), []byte(b.String()), 0o644)
}

func (n *node) java(heapMB int, args ...string) *exec.Cmd {
	fixed := []string{
		fmt.Sprintf("-Xmx%dm", heapMB), fmt.Sprintf("-Xms%dm", min(heapMB, 256)),
		"-Dlog4j2.configurationFile=" + filepath.Join(n.dir, "log4j2.properties"),
		"-cp", filepath.Join(n.libDir, "*"),
	}
	if !n.measured {
		fixed = append(fixed, "-XX:TieredStopAtLevel=1")
	}
	return exec.Command("java", append(fixed, args...)...)
}

// format prepares the data directory.
func (n *node) format(clusterID string) error {
	out, err := n.java(128, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", n.configFile()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("kafkatest: format node %d: %w\n%s", n.id, err, out)
	}
	return nil
}

// start runs the broker.
func (n *node) start() error {
	out, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("kafkatest: open log of node %d: %w", n.id, err)
	}
	cmd := n.java(n.heapMB, "kafka.Kafka", n.configFile())
	cmd.Env = append(os.Environ(), n.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	exited, err := testcache.Start(cmd)
	_ = out.Close() // the broker has it
	if err != nil {
		return fmt.Errorf("kafkatest: start node %d: %w", n.id, err)
	}
	n.cmd, n.exited = cmd, exited
	return nil
}

func (n *node) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// signal sends sig, and waits for the end of the process if it is one that
// ends it.
func (n *node) signal(sig syscall.Signal) error {
	if !n.running() {
		return fmt.Errorf("kafkatest: node %d is not running", n.id)
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("kafkatest: signal node %d: %w", n.id, err)
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		<-n.exited
	}
	return nil
}

// logTail returns the end of the node's log for error messages.
func (n *node) logTail() string {
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

// cpuTime reads the user and system time from /proc/PID/stat, in ticks of
// 10 ms (proc(5); the kernel's USER_HZ is 100 on every common architecture).
func (n *node) cpuTime() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("kafkatest: processor time of node %d: %w", n.id, err)
	}
	// The second field is a name in parentheses, which may hold spaces.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} { // fields 14 and 15 of the whole line
		t, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("kafkatest: processor time of node %d: %w", n.id, err)
		}
		ticks += t
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
