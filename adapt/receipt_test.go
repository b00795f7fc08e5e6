package adapt

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func receipts(t *testing.T) (files [][]byte) {
	t.Helper()
	previous := ""
	for i := range 3 {
		r := Receipt{
			Number: uint64(i + 1), Previous: previous, Time: time.Unix(int64(1e9+i), 0).UTC(), Event: EventVerdict, Model: "m", Reason: "schedule",
			Report: &RunReport{Settings: DefaultRun, Figures: passing(), Verdict: Judge(passing(), DefaultThresholds)},
		}
		text, digest, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		files, previous = append(files, text), digest
	}
	return files
}

func TestReceiptChain(t *testing.T) {
	files := receipts(t)
	if err := VerifyChain(files); err != nil {
		t.Fatal(err)
	}
	r, err := DecodeReceipt(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if v := Judge(r.Report.Figures, r.Report.Settings.Gate); !reflect.DeepEqual(v, r.Report.Verdict) {
		t.Errorf("the figures of the receipt are judged otherwise: %+v", v)
	}
	changed := receipts(t)
	changed[1] = bytes.Replace(changed[1], []byte("schedule"), []byte("Schedule"), 1)
	if err := VerifyChain(changed); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("changed: %v", err)
	}
	if err := VerifyChain([][]byte{files[0], files[2]}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("taken out: %v", err)
	}
	newer := bytes.Replace(files[0], []byte(`"min_reader": 1`), []byte(`"min_reader": 9`), 1)
	if _, err := DecodeReceipt(newer); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("newer: %v", err)
	}
}
