package proc

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func TestCalmScheduler(t *testing.T) {
	CalmScheduler()
	tid := monitor()
	if tid == 0 || tid == os.Getpid() {
		t.Fatalf("the monitor is thread %d of process %d", tid, os.Getpid())
	}
	got, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/timerslack_ns")
	able := os.Geteuid() == 0 && runtime.GOMAXPROCS(0) > 1
	if able && (err != nil || strings.TrimSpace(string(got)) != sysmonSlack) {
		t.Errorf("its timer slack is %q (%v), want %s", got, err, sysmonSlack)
	}
	own, err := os.ReadFile("/proc/self/timerslack_ns")
	if err != nil || strings.TrimSpace(string(own)) == sysmonSlack {
		t.Errorf("that of the main thread is %q (%v)", own, err)
	}
}
