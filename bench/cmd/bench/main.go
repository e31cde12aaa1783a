//go:build linux

// Command bench measures Sluice beside nginx, HAProxy, Varnish and Caddy on this
// machine and writes bench/results/COMMIT.md, .short.md and .json.
//
//	go run ./cmd/bench                                  everything, about an hour
//	go run ./cmd/bench -quick                           forward against nginx, two minutes
//	go run ./cmd/bench -scenario forward,respond -gateways sluice,caddy
//	go run ./cmd/bench -render results/COMMIT.json      the tables again, from the data
//
// README.md beside the module says what is measured and how.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
	"github.com/sluice-gateway/sluice/bench/internal/proc"
	"github.com/sluice-gateway/sluice/bench/internal/report"
	"github.com/sluice-gateway/sluice/bench/internal/trial"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; all that was started has been stopped, and no results were written")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// options are the command line.
type options struct {
	rounds, threads int
	warm, window    time.Duration
	profile         time.Duration
	quick           bool
	scenarios       string
	gateways        string
	conns           string
	pin             string
	out             string
	render          string
}

func parse(args []string) (options, error) {
	var o options
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.IntVar(&o.rounds, "rounds", 7, "interleaved rounds")
	set.IntVar(&o.threads, "threads", max(1, runtime.NumCPU()/4), "threads of the load generator")
	set.DurationVar(&o.warm, "warm", 300*time.Millisecond, "load before each window, left out")
	set.DurationVar(&o.window, "window", 2*time.Second, "length of each measurement")
	set.DurationVar(&o.profile, "profile", 0, "how long a limit is profiled, 0s: not; default a minute, with few rounds 15s for each, with -quick 10s")
	set.BoolVar(&o.quick, "quick", false, "forward with 64 connections against nginx only, shorter windows")
	set.StringVar(&o.scenarios, "scenario", "", "only these, with commas between")
	set.StringVar(&o.gateways, "gateways", "", "only these, with commas between; the first is what the others are compared with")
	set.StringVar(&o.conns, "conns", "", "only these numbers of connections, with commas between")
	set.StringVar(&o.pin, "pin", "auto", "auto, none, or split: the gateways on one half of the cores, load and origin on the other")
	set.StringVar(&o.out, "out", "", "folder for the results; default bench/results")
	set.StringVar(&o.render, "render", "", "only write the tables of this JSON file again")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 {
		return o, fmt.Errorf("%q is not understood; -h lists the flags", set.Arg(0))
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["profile"] {
		o.profile = min(time.Minute, time.Duration(o.rounds)*15*time.Second)
		if o.quick {
			o.profile = 10 * time.Second
		}
	}
	if o.quick {
		for name, value := range map[string]string{"scenario": "forward", "gateways": "sluice,nginx", "conns": "64", "window": "1s"} {
			if !given[name] {
				if err := set.Set(name, value); err != nil {
					return o, err
				}
			}
		}
	}
	if o.rounds < 1 || o.window <= 0 || o.warm < 0 || o.profile < 0 || o.threads < 1 {
		return o, fmt.Errorf("-rounds, -threads and -window must be positive")
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == trial.SinkCommand {
		return trial.ServeSink(ctx, args[1])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.render != "" {
		return render(o.render)
	}
	root, err := findRoot()
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = filepath.Join(root, "bench", "results")
	}
	if err := proc.RaiseFiles(4096); err != nil {
		return err
	}
	// The load allocates next to nothing; what little there is need not be collected
	// within a window.
	debug.SetGCPercent(800)
	results, err := measure(ctx, o, root)
	if err != nil {
		return err
	}
	path, err := write(o.out, results)
	if err != nil {
		return err
	}
	short(results)
	say("written to %s.md, .short.md and .json", path)
	if failed := results.Failures(); len(failed) > 0 {
		return fmt.Errorf("%d measurements failed:\n%s", len(failed), strings.Join(failed, "\n"))
	}
	return nil
}

func measure(ctx context.Context, o options, root string) (*report.Run, error) {
	b := &trial.Bench{
		Rounds: o.rounds, Warm: o.warm, Window: o.window, Profile: o.profile, Threads: o.threads, Cores: runtime.NumCPU(), Say: say,
	}
	results := &report.Run{Commit: commit(root), Date: time.Now().UTC(), Machine: report.Machine(proc.This())}
	var err error
	if b.Scenarios, err = chooseScenarios(o.scenarios, o.conns); err != nil {
		return nil, err
	}
	chosen, err := chooseGateways(o.gateways)
	if err != nil {
		return nil, err
	}
	if b.Pin, results.Settings.Pinning, err = pinning(o.pin, b.Cores); err != nil {
		return nil, err
	}
	tools := &gateways.Tools{Root: root, Say: say}
	if b.Nginx, err = tools.Need(ctx, "nginx", "nginx"); err != nil {
		return nil, fmt.Errorf("the origin: %w", err)
	}
	if slices.ContainsFunc(b.Scenarios, trial.Scenario.Shared) {
		if b.Redis, err = tools.Need(ctx, "redis-server", "redis-server"); err != nil {
			return nil, fmt.Errorf("the limits that are shared: %w", err)
		}
		version, err := redisVersion(ctx, b.Redis)
		if err != nil {
			return nil, err
		}
		results.Versions = append(results.Versions, report.Version{Name: "redis", Version: version})
	}
	for _, g := range chosen {
		version, err := g.Prepare(ctx, tools)
		if err != nil {
			return nil, err
		}
		b.Gateways = append(b.Gateways, g)
		results.Versions = append(results.Versions, report.Version{Name: g.Name(), Version: version})
		results.Notes = append(results.Notes, g.Notes()...)
	}
	results.Versions = append(results.Versions, report.Version{Name: "built with", Version: runtime.Version()})
	results.Notes = append(notes(), results.Notes...)
	results.Settings.Base, results.Settings.Rounds = b.Gateways[0].Name(), o.rounds
	results.Settings.Warm, results.Settings.Window, results.Settings.Profile, results.Settings.Threads = o.warm, o.window, o.profile, o.threads
	say("measuring for about %v", b.Lasts().Round(time.Minute/2))
	results.Scenarios, err = b.Run(ctx)
	return results, err
}

// redisVersion is the version of a redis-server, such as 7.0.15.
func redisVersion(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	_, version, _ := strings.Cut(string(out), "v=")
	version, _, _ = strings.Cut(version, " ")
	return version, nil
}

func notes() []string {
	return []string{
		"Access logs are off everywhere. Every gateway forwards on kept-alive connections, has as many workers as there are cores for it, and sends X-Forwarded-For, -Proto and -Host.",
		"The origin is nginx with one worker; uploads go to a small Go program that reads the whole body. Load and origin run on the same machine and share its cores as said above, so throughput is that of all three together; CPU per request is the gateway's alone.",
		"Every answer's status and length are checked, and the first one's every byte. One wrong or missing answer makes a measurement fail.",
		"Latency is measured in every round of forward and in the first three of the other scenarios.",
		"User and system time are divided as the kernel samples them at its tick; their sum is exact.",
		"What a limit adds is measured with a second instance of the same gateway that has none and gets the same requests, one right after the other, in turn the one and the other first. At saturation that difference is moved more by chance than by the limit, so in limit-local, limit-leased and limit-exact the gateway's own CPU profile also says what its limiter takes. The Redis of shared limits runs where load and origin do; its CPU is not the gateway's.",
		"Resident memory counts pages that processes share once.",
		"A latency below the origin's is noise: at the lowest quantiles two runs of the same server differ by as much.",
	}
}

// list splits a list with commas; nil: everything.
func list(text string) []string {
	if text == "" {
		return nil
	}
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func chooseScenarios(names, conns string) ([]trial.Scenario, error) {
	var chosen []trial.Scenario
	wanted := list(names)
	known := []string{}
	for _, s := range trial.Scenarios() {
		known = append(known, s.Name)
		if wanted == nil || slices.Contains(wanted, s.Name) {
			chosen = append(chosen, s)
		}
	}
	for _, w := range wanted {
		if !slices.Contains(known, w) {
			return nil, fmt.Errorf("no scenario %q; there are %s", w, strings.Join(known, ", "))
		}
	}
	if only := list(conns); only != nil {
		for i := range chosen {
			chosen[i].Conns = slices.DeleteFunc(chosen[i].Conns, func(n int) bool { return !slices.Contains(only, fmt.Sprint(n)) })
		}
	}
	for _, s := range chosen {
		if len(s.Conns) > 0 {
			return chosen, nil
		}
	}
	return nil, fmt.Errorf("no scenario is measured with %s connections", conns)
}

func chooseGateways(names string) ([]gateways.Gateway, error) {
	all := gateways.All()
	wanted := list(names)
	if wanted == nil {
		return all, nil
	}
	var chosen []gateways.Gateway
	for _, w := range wanted {
		i := slices.IndexFunc(all, func(g gateways.Gateway) bool { return g.Name() == w })
		if i < 0 {
			var known []string
			for _, g := range all {
				known = append(known, g.Name())
			}
			return nil, fmt.Errorf("no gateway %q; there are %s", w, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// pinning shares out the cores. With few of them, none is spared: halves of a
// two-core machine would measure how load and origin share one.
func pinning(how string, cores int) (gateway []int, words string, err error) {
	switch {
	case how == "none" || how == "auto" && cores < 4:
		return nil, "Gateway, load and origin share all cores.", nil
	case how == "split" || how == "auto":
		if cores < 2 {
			return nil, "", fmt.Errorf("-pin split needs two cores")
		}
		for cpu := (cores + 1) / 2; cpu < cores; cpu++ {
			gateway = append(gateway, cpu)
		}
		return gateway, fmt.Sprintf("The gateways run on cores %d to %d, load and origin on the others.", gateway[0], cores-1), nil
	}
	return nil, "", fmt.Errorf("-pin is %q; it can be auto, none or split", how)
}

// findRoot is the repository's folder, from where we are upwards.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil &&
			strings.HasPrefix(string(b), "module github.com/sluice-gateway/sluice\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("run this within the repository")
		}
		dir = up
	}
}

// commit names what is measured. Results that are written do not make it dirty.
func commit(root string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	hash, err := git("rev-parse", "--short=10", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changed, err := git("status", "--porcelain", "--", ".", ":!bench/results"); err != nil || changed != "" {
		hash += "-dirty"
	}
	return hash
}

func write(dir string, r *report.Run) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, r.Commit)
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path+".json", append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	return path, tables(path, r)
}

func tables(path string, r *report.Run) error {
	var long, brief strings.Builder
	if err := r.Markdown(&long); err != nil {
		return err
	}
	if err := r.Short(&brief); err != nil {
		return err
	}
	if err := os.WriteFile(path+".md", []byte(long.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(path+".short.md", []byte(brief.String()), 0o644)
}

func short(r *report.Run) {
	fmt.Println()
	_ = r.Short(os.Stdout)
	fmt.Println()
	for _, line := range r.Verdicts() {
		fmt.Println(line)
	}
}

func render(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r report.Run
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return tables(strings.TrimSuffix(path, ".json"), &r)
}
