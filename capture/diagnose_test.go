package capture

import "testing"

// The lines are as FFmpeg 5.1, GStreamer 1.22 and ld.so 2.36 write them.
func TestExplain(t *testing.T) {
	for line, want := range map[string]struct {
		says  string
		react reaction
	}{
		"[rtsp @ 0x7f2bb0001600] method DESCRIBE failed: 401 Unauthorized":                                            {"password is refused", refused},
		"[http @ 0x1] HTTP error 401 Unauthorized":                                                                    {"password is refused", refused},
		"[rtsp @ 0x1] method DESCRIBE failed: 404 Not Found":                                                          {"no such stream", retry},
		"[rtsp @ 0x1] method SETUP failed: 461 Unsupported transport":                                                 {"set transport", retry},
		"[rtsp @ 0x1] method DESCRIBE failed: 453 Not Enough Bandwidth":                                               {"answers 453 Not Enough Bandwidth", retry},
		"[http @ 0x1] HTTP error 503 Service Unavailable":                                                             {"answers 503 Service Unavailable", retry},
		"[mov,mp4,m4a,3gp,3g2,mj2 @ 0x12ad8000] moov atom not found":                                                  {"no index", retry},
		"fovea-grab: error while loading shared libraries: libopencv_core.so.406: cannot open shared object file: No": {"libopencv_core.so.406 is not installed", hopeless},
		`ERROR GST_PIPELINE gst/parse/grammar.y:570:gst_parse_element_make: no element "x265enc"`:                     {"no element x265enc", hopeless},
		"ERROR GST_PIPELINE gst/parse/grammar.y:1262:priv_gst_parse_yyparse: syntax error":                            {"pipeline is wrong: syntax error", hopeless},
	} {
		advice, react, found := explain([]string{"something else", line, "and more"})
		if !found || react != want.react {
			t.Errorf("%s: found %v, reaction %d, want %d", line, found, react, want.react)
		}
		wants(t, line, advice, want.says)
	}
	if advice, _, found := explain([]string{"[h264 @ 0x1] error while decoding MB 3 4, bytestream -5"}); found {
		t.Errorf("a decoder's complaint is explained as %q", advice)
	}
}
