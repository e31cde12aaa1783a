//go:build linux

// Package proc reads the operating system's accounting of processes: CPU time and
// memory of a process with all its descendants.
//
// The sum of CPU time is the scheduler's own, exact to the nanosecond, from each
// process's CPU clock (clock_getcpuclockid(3)). How it divides into user and
// system time comes from /proc/PID/stat, which the kernel samples at its tick;
// over a window of seconds that is good to a few per cent. A process that ended
// within a window is in its parent's times of waited-for children, to a tick of
// 10 ms.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hertz is the unit of times in /proc/PID/stat, USER_HZ: 100 on every
// architecture that Go runs on.
const hertz = 100

// Usage is CPU time since a process began.
type Usage struct {
	Total  time.Duration // exact
	User   time.Duration // User + System is near Total
	System time.Duration
}

// Since is what was used after an earlier reading.
func (u Usage) Since(before Usage) Usage {
	return Usage{u.Total - before.Total, u.User - before.User, u.System - before.System}
}

// Split divides the exact total as the sampled times divide.
func (u Usage) Split() (user, system time.Duration) {
	sampled := u.User + u.System
	if sampled <= 0 {
		return 0, u.Total
	}
	user = time.Duration(float64(u.Total) * float64(u.User) / float64(sampled))
	return user, u.Total - user
}

// stat is what we use of /proc/PID/stat.
type stat struct {
	parent         int
	user, system   time.Duration
	cuser, csystem time.Duration // of children that ended and were waited for
	zombie         bool
}

var errStat = errors.New("unreadable /proc/PID/stat")

// parseStat reads a line of /proc/PID/stat (proc_pid_stat(5)). The command, the
// second field, may hold spaces and parentheses.
func parseStat(b []byte) (stat, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return stat{}, errStat
	}
	f := bytes.Fields(b[end+1:])
	// f[0] is field 3, the state.
	if len(f) < 18 {
		return stat{}, errStat
	}
	var n [18]int64
	for _, i := range []int{1, 11, 12, 13, 14} {
		v, err := strconv.ParseInt(string(f[i]), 10, 64)
		if err != nil {
			return stat{}, errStat
		}
		n[i] = v
	}
	ticks := func(v int64) time.Duration { return time.Duration(v) * (time.Second / hertz) }
	return stat{
		parent: int(n[1]), user: ticks(n[11]), system: ticks(n[12]), cuser: ticks(n[13]), csystem: ticks(n[14]),
		zombie: f[0][0] == 'Z',
	}, nil
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// Tree is a process and its descendants, the process first.
func Tree(root int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	alive := false
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if err != nil {
			continue // ended meanwhile
		}
		alive = alive || pid == root && !s.zombie
		children[s.parent] = append(children[s.parent], pid)
	}
	if !alive {
		return nil, fmt.Errorf("process %d has ended", root)
	}
	return descend(root, children), nil
}

func descend(root int, children map[int][]int) []int {
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// CPU is what the processes have used, with the children that they waited for.
func CPU(pids []int) (Usage, error) {
	var sum Usage
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // in its parent's cuser and csystem now
			}
			return Usage{}, err
		}
		exact, err := clock(pid)
		if err != nil {
			continue
		}
		sum.Total += exact + s.cuser + s.csystem
		sum.User += s.user + s.cuser
		sum.System += s.system + s.csystem
	}
	return sum, nil
}

// clock reads a process's CPU clock, all its threads together, ended ones too.
func clock(pid int) (time.Duration, error) {
	var ts unix.Timespec
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel's posix-timers.h.
	if err := unix.ClockGettime(int32(^uint32(pid)<<3|2), &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// Resident is the memory of the processes, bytes; pages that several of them
// share are counted once, by shares.
func Resident(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		n, err := resident(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func resident(pid int) (int64, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	if b, err := os.ReadFile(dir + "/smaps_rollup"); err == nil {
		return kilobytes(b, "Pss:")
	}
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, err
	}
	return kilobytes(b, "VmRSS:")
}

// kilobytes finds "Key:   123 kB" and gives bytes.
func kilobytes(b []byte, key string) (int64, error) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte(key))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) != 2 || string(f[1]) != "kB" {
			break
		}
		n, err := strconv.ParseInt(string(f[0]), 10, 64)
		return n << 10, err
	}
	return 0, fmt.Errorf("no %q in kB", key)
}

// Self is the CPU time of this process.
func Self() time.Duration {
	d, err := clock(os.Getpid())
	if err != nil {
		return 0
	}
	return d
}

// RaiseFiles lets this process, and those it starts, open as many files as the
// hard limit allows, which must be at least need.
func RaiseFiles(need uint64) error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	if lim.Max < need {
		// Root may raise the hard limit as well.
		more := syscall.Rlimit{Cur: need, Max: need}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more); err != nil {
			return fmt.Errorf("%d open files are needed and the limit is %d: raise it with ulimit -n", need, lim.Max)
		}
		return nil
	}
	// Set even when it is high already: the Go runtime has raised it for us alone,
	// and hands what it found to children until somebody sets it.
	lim.Cur = lim.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
}
