package adapt

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReceipt(t *testing.T) {
	text, err := Receipt{
		Time: time.Unix(1e9, 0).UTC(), Event: EventVerdict, Model: "m", Reason: "schedule",
		Report: &RunReport{Settings: DefaultRun, Figures: passing(), Verdict: Judge(passing(), DefaultThresholds)},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := DecodeReceipt(text)
	if err != nil {
		t.Fatal(err)
	}
	if v := Judge(r.Report.Figures, r.Report.Settings.Gate); !reflect.DeepEqual(v, r.Report.Verdict) {
		t.Errorf("the figures of the receipt are judged otherwise: %+v", v)
	}
	newer := bytes.Replace(text, []byte(`"min_reader":1`), []byte(`"min_reader":9`), 1)
	if _, err := DecodeReceipt(newer); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("newer: %v", err)
	}
}
