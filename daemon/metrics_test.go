package main

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// Every number of the health JSON is a metric of the same words, and the metrics are well formed.
func TestMetricsAreTheHealthJSON(t *testing.T) {
	var h fleet.Health
	fill(reflect.ValueOf(&h).Elem())
	h.Cameras = map[string]fleet.Camera{"door": h.Cameras[""]}
	h.Health, h.Adapt.State, h.Model.SHA256 = fleet.HealthOK, fleet.AdaptIdle, "0a"
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	d.metrics = newMetrics(d)
	d.status.Store(&status{Health: h, Cameras: []cameraStatus{{ID: "door"}}})

	families, err := d.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range families {
		have[f.GetName()] = true
	}
	fields := map[string]bool{ // that are words, not numbers: a metric with a label result
		"fovea_health": true, "fovea_camera_state": true, "fovea_camera_quality": true,
		"fovea_model_probation": true, "fovea_adapt_state": true, "fovea_adapt_last_verdict": true,
		"fovea_setup_missing": true, // how many
		// beside the health JSON
		"fovea_camera_frames_total": true, "fovea_inference_seconds": true, "fovea_mqtt_connected": true,
	}
	for _, want := range words(reflect.TypeOf(h), "fovea") {
		fields[want] = true
		if !have[want] {
			t.Errorf("no metric %s", want)
		}
	}
	for name := range have {
		if strings.HasPrefix(name, "fovea_") && !fields[name] {
			t.Errorf("the metric %s is no field of the health JSON", name)
		}
	}
	problems, err := testutil.GatherAndLint(d.metrics.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "fovea_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// fill makes every pointer, map and string of v something.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1e9, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		element := reflect.New(v.Type().Elem()).Elem()
		fill(element)
		v.SetMapIndex(reflect.New(v.Type().Key()).Elem(), element)
	}
}

// words are the names of the numbers, truths and times of the health JSON, as metrics are named.
func words(t reflect.Type, prefix string) []string {
	skip := map[string]bool{"fovea_schema": true, "fovea_ts": true, "fovea_labels": true} // about the message itself
	var all []string
	for i := range t.NumField() {
		f := t.Field(i)
		word, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		name := prefix + "_" + word
		kind := f.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch {
		case skip[name] || kind.Kind() == reflect.String || kind.Kind() == reflect.Slice:
		case kind == reflect.TypeFor[time.Time](), kind.Kind() != reflect.Struct && kind.Kind() != reflect.Map:
			all = append(all, name)
		case kind.Kind() == reflect.Map:
			all = append(all, words(kind.Elem(), strings.TrimSuffix(name, "s"))...)
		default:
			all = append(all, words(kind, name)...)
		}
	}
	return all
}
