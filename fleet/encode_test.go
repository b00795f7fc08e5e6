package fleet

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestNaNDoesNotSilenceHealth(t *testing.T) {
	nan, ok, due := math.NaN(), 0.5, time.Unix(1e9, 0).UTC()
	h := Health{
		Thermal: &Thermal{Celsius: &nan},
		Cameras: map[string]Camera{"yard": {FPS: &nan, LastFrameAgeSeconds: &ok}},
		Model:   Model{Entropy: &nan, Agreement: &ok},
		Adapt:   Adapt{NextDue: &due},
	}
	clean := h
	dropNonFinite(reflect.ValueOf(&clean).Elem())
	text, err := json.Marshal(clean)
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{`"fps"`, `"entropy"`, `"celsius"`} {
		if strings.Contains(string(text), absent) {
			t.Errorf("%s is still in %s", absent, text)
		}
	}
	for _, kept := range []string{`"last_frame_age_seconds":0.5`, `"agreement":0.5`, `"next_due":"2001-09-09T01:46:40Z"`} {
		if !strings.Contains(string(text), kept) {
			t.Errorf("%s is missing in %s", kept, text)
		}
	}
	if h.Thermal.Celsius == nil || h.Cameras["yard"].FPS == nil {
		t.Error("the caller's Health was changed")
	}
}
