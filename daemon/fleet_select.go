package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// selection says which devices are meant.
type selection struct {
	Devices []string `arg:"" optional:"" name:"device" help:"Devices by name."`
	Select  []string `placeholder:"KEY=VALUE" sep:"," help:"Those whose label KEY (or device: the name) is VALUE, in which * stands for anything. Given again, both must hold."`
}

func (s selection) empty() bool { return len(s.Devices)+len(s.Select) == 0 }

// matches says whether a device is meant; an empty selection means all.
func (s selection) matches(d fleet.Seen) (bool, error) {
	if len(s.Devices) > 0 && !slices.Contains(s.Devices, d.Device) {
		return false, nil
	}
	for _, term := range s.Select {
		key, pattern, ok := strings.Cut(term, "=")
		if !ok || key == "" {
			return false, &exitError{exitUsage, fmt.Errorf("--select %s: write it as KEY=VALUE, such as site=hall-2", term)}
		}
		value, has := d.Device, true
		if key != "device" {
			value, has = "", false
			if d.Health != nil {
				value, has = d.Health.Labels[key]
			}
		}
		fits, err := path.Match(pattern, value)
		if err != nil {
			return false, &exitError{exitUsage, fmt.Errorf("--select %s: %w", term, err)}
		}
		if !has || !fits {
			return false, nil
		}
	}
	return true, nil
}

// of returns the devices that are meant, by name. A name that nobody has is an error.
func (s selection) of(all []fleet.Seen) (chosen []fleet.Seen, err error) {
	if _, err := s.matches(fleet.Seen{}); err != nil { // also where there is no device to try it on
		return nil, err
	}
	for _, name := range s.Devices {
		if !slices.ContainsFunc(all, func(d fleet.Seen) bool { return d.Device == name }) {
			return nil, &exitError{exitDevices, fmt.Errorf("no device %s has said anything on this broker; \"fovea fleet ls\" lists those that did", name)}
		}
	}
	for _, d := range all {
		if fits, err := s.matches(d); err != nil {
			return nil, err
		} else if fits {
			chosen = append(chosen, d)
		}
	}
	return chosen, nil
}

// seen asks the broker for the devices that are meant, by name.
func (s selection) seen(ctx context.Context, f *fleetVerb) ([]fleet.Seen, error) {
	o, end, err := f.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	devices, err := s.of(o.Devices())
	return append([]fleet.Seen{}, devices...), err // [] in JSON where there is none
}

// targets are the devices that something is done to: the ones chosen, or all where that is said.
type targets struct {
	selection
	All bool `help:"All devices."`
}

// choose returns the names of the online devices that are meant, and of those that are offline.
func (t targets) choose(all []fleet.Seen) (online, offline []string, err error) {
	if t.empty() != t.All {
		return nil, nil, &exitError{exitUsage, errors.New("which devices? name them, or give --select KEY=VALUE, or --all")}
	}
	chosen, err := t.of(all)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range chosen {
		if d.Online {
			online = append(online, d.Device)
		} else {
			offline = append(offline, d.Device)
		}
	}
	if len(online) == 0 {
		return nil, nil, &exitError{exitDevices, fmt.Errorf("no device to tell: %d chosen, %d of them offline; \"fovea fleet ls\" lists all", len(chosen), len(offline))}
	}
	return online, offline, nil
}

// labelsOf writes labels as they are selected.
func labelsOf(labels map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, key+"="+labels[key])
	}
	return strings.Join(all, ",")
}
