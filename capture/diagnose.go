package capture

import "regexp"

// A finding turns what FFmpeg, GStreamer, OpenCV or the dynamic linker wrote
// into a sentence that says what to do.
type finding struct {
	pattern *regexp.Regexp
	advice  string // may use the pattern's groups, as ${1}
	react   reaction
}

// reaction is what the program does about a finding, besides telling it.
type reaction uint8

const (
	retry    reaction = iota
	refused           // the password is wrong: do not try again soon
	hopeless          // the child would wait for ever: stop it now
)

// findings, the most telling first: the first that matches any line wins.
var findings = []finding{
	{regexp.MustCompile(`401 Unauthorized|authorization failed`), "the user name or password is refused (401); correct username and password", refused},
	{regexp.MustCompile(`403 Forbidden`), "access is refused (403); give this user the right to watch the stream", refused},
	{regexp.MustCompile(`404 (?:Stream )?Not Found`), "there is no such stream on the server (404); correct the path of the URL", retry},
	{regexp.MustCompile(`461 Unsupported [Tt]ransport|Nonmatching transport`), "the camera does not speak this transport; set transport to the other of tcp and udp", retry},
	{regexp.MustCompile(`(?:Server returned|HTTP error|method \w+ failed:) ([45]\d\d [^\n(]*)`), "the server answers ${1}; look at the camera's own log or page", retry},
	{regexp.MustCompile(`detected only with low score`), "the data is nothing that FFmpeg knows as video; ffprobe tells more", retry},
	{regexp.MustCompile(`moov atom not found`), "the file has no index (moov atom): its recording or copy was cut off; copy or record it again", retry},
	{regexp.MustCompile(`Could not find decoder for codec_id=(\d+)|[Cc]odec not found|Unsupported codec`), "there is no decoder for this video's codec; convert it: ffmpeg -i IN -c:v libx264 OUT.mp4", retry},
	{regexp.MustCompile(`Invalid data found when processing input|could not find codec parameters`), "the data is no video that can be read; is it truncated, or something else? ffprobe tells more", retry},
	{regexp.MustCompile(`Protocol not found`), "this FFmpeg does not speak the URL's protocol; use another URL of the camera", retry},
	// GStreamer starts a pipeline that lacks an element, and OpenCV waits for its first picture.
	{regexp.MustCompile(`gst_parse_element_make: no element "([^"]+)"`), "GStreamer has no element ${1} here; install the plugin package that holds it (gst-inspect-1.0 ${1}), or correct the pipeline", hopeless},
	{regexp.MustCompile(`gst/parse/grammar\.y:\d+:\w+: (.*)`), "the pipeline is wrong: ${1}; try it with gst-launch-1.0", hopeless},
	{regexp.MustCompile(`(?:could not link|syntax error|Error opening bin)[^\n]*`), "the pipeline is wrong: ${0}; try it with gst-launch-1.0", retry},
	{regexp.MustCompile(`error while loading shared libraries: (\S+):`), "fovea-grab cannot start: ${1} is not installed; install OpenCV's libraries (on Debian libopencv-videoio406), or rebuild fovea-grab", hopeless},
}

// explain looks in a grabber's log for a reason that a person can do something
// about.
func explain(log []string) (advice string, react reaction, found bool) {
	for _, f := range findings {
		for _, line := range log {
			if m := f.pattern.FindStringSubmatchIndex(line); m != nil {
				return string(f.pattern.ExpandString(nil, f.advice, line, m)), f.react, true
			}
		}
	}
	return "", retry, false
}
