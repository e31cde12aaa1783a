//go:build linux

package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestQuickIsForwardAgainstNginxUnlessSaidOtherwise(t *testing.T) {
	o, err := parse([]string{"-quick"})
	if err != nil || o.scenarios != "forward" || o.gateways != "sluice,nginx" || o.conns != "64" || o.window != time.Second || o.rounds != 7 {
		t.Errorf("%+v, %v", o, err)
	}
	if o.profile != 10*time.Second {
		t.Errorf("limits are profiled for %v, want 10s", o.profile)
	}
	o, err = parse([]string{"-quick", "-gateways", "sluice,caddy", "-window", "3s"})
	if err != nil || o.gateways != "sluice,caddy" || o.window != 3*time.Second || o.scenarios != "forward" {
		t.Errorf("%+v, %v; want what was given", o, err)
	}
}

func TestLimitsAreProfiledForAMinuteUnlessTheRoundsAreFew(t *testing.T) {
	for args, want := range map[string]time.Duration{
		"": time.Minute, "-rounds 4": time.Minute, "-rounds 1": 15 * time.Second, "-rounds 2": 30 * time.Second,
		"-rounds 1 -profile 40s": 40 * time.Second, "-quick -profile 0s": 0,
	} {
		if o, err := parse(strings.Fields(args)); err != nil || o.profile != want {
			t.Errorf("%q: %v, %v, want %v", args, o.profile, err, want)
		}
	}
	if _, err := parse([]string{"-profile", "-1s"}); err == nil {
		t.Error("a negative time is taken")
	}
}

func TestScenariosAreChosenByNameAndConnections(t *testing.T) {
	all, err := chooseScenarios("", "")
	if err != nil || len(all) != 14 {
		t.Errorf("%d scenarios, %v; want 14", len(all), err)
	}
	some, err := chooseScenarios("respond, forward", "1,256")
	if err != nil || len(some) != 2 || !reflect.DeepEqual(some[0].Conns, []int{1, 256}) || len(some[1].Conns) != 0 {
		t.Errorf("%+v, %v; want forward with 1 and 256 connections and nothing of respond", some, err)
	}
	for _, c := range []struct{ names, conns, want string }{
		{"forwards", "", `no scenario "forwards"; there are forward, respond`},
		{"respond", "3", "no scenario is measured with 3 connections"},
	} {
		if _, err := chooseScenarios(c.names, c.conns); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q: %v, want %s", c.names, c.conns, err, c.want)
		}
	}
}

func TestGatewaysAreChosenInTheOrderGiven(t *testing.T) {
	names := func(list string) (out []string) {
		chosen, err := chooseGateways(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range chosen {
			out = append(out, g.Name())
		}
		return out
	}
	if got, want := names(""), []string{"sluice", "nginx", "haproxy", "varnish", "caddy"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := names("caddy,sluice"), []string{"caddy", "sluice"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, err := chooseGateways("apache"); err == nil {
		t.Error("no error for a gateway that is not there")
	}
}

func TestPinningSparesFewCoresAndSplitsMany(t *testing.T) {
	cases := []struct {
		how   string
		cores int
		want  []int
		fails bool
	}{
		{"auto", 2, nil, false},
		{"auto", 8, []int{4, 5, 6, 7}, false},
		{"none", 8, nil, false},
		{"split", 2, []int{1}, false},
		{"split", 5, []int{3, 4}, false},
		{"split", 1, nil, true},
		{"half", 8, nil, true},
	}
	for _, c := range cases {
		got, words, err := pinning(c.how, c.cores)
		if (err != nil) != c.fails || !reflect.DeepEqual(got, c.want) || (words == "") != c.fails {
			t.Errorf("%s of %d cores: %v, %q, %v; want %v", c.how, c.cores, got, words, err, c.want)
		}
	}
}
