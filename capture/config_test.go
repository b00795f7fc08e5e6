package capture

import (
	"errors"
	"math"
	"slices"
	"testing"
)

func valid() Config { return Config{ID: "front-door", Source: "rtsp://10.0.0.7/stream"} }

func TestValidateNamesTheField(t *testing.T) {
	square := Polygon{{0, 0}, {1, 0}, {1, 1}, {0, 1}}
	for name, test := range map[string]struct {
		change func(*Config)
		field  string
		says   string
	}{
		"no id":              {func(c *Config) { c.ID = "" }, "id", "missing"},
		"id":                 {func(c *Config) { c.ID = "Front door" }, "id", "a-z, 0-9 and -"},
		"long id":            {func(c *Config) { c.ID = string(make([]byte, 64)) }, "id", "1 to 63"},
		"no source":          {func(c *Config) { c.Source = "" }, "source", "missing"},
		"scheme":             {func(c *Config) { c.Source = "ftp://host/x" }, "source", "ftp://"},
		"no host":            {func(c *Config) { c.Source = "rtsp:///x" }, "source", "host"},
		"two lines":          {func(c *Config) { c.Source = "/a\n/b" }, "source", "one line"},
		"bad URL":            {func(c *Config) { c.Source = "rtsp://u:p%ss@h/x" }, "source", "percent-encoded"},
		"empty pipeline":     {func(c *Config) { c.Source = "gst: " }, "source", "after gst:"},
		"password of a file": {func(c *Config) { c.Source, c.Password = "/a.mp4", "x" }, "username", "stream"},
		"transport":          {func(c *Config) { c.Transport = "multicast" }, "transport", "tcp or udp"},
		"fps":                {func(c *Config) { c.FPS = -1 }, "fps", "between 0"},
		"fps NaN":            {func(c *Config) { c.FPS = math.NaN() }, "fps", "between 0"},
		"two points":         {func(c *Config) { c.Privacy = []Polygon{square, {{0, 0}, {1, 1}}} }, "privacy[1]", "2 points"},
		"pixels":             {func(c *Config) { c.Privacy = []Polygon{{{0, 0}, {640, 0}, {1, 1}}} }, "privacy[0][1]", "[640, 0]"},
		"NaN":                {func(c *Config) { c.Privacy = []Polygon{{{0, 0}, {1, 0}, {1, math.NaN()}}} }, "privacy[0][2]", "0 to 1"},
		"bow tie":            {func(c *Config) { c.Privacy = []Polygon{{{0, 0}, {1, 1}, {1, 0}, {0, 1}}} }, "privacy[0]", "crosses itself"},
		"max_side":           {func(c *Config) { c.MaxSide = 5000 }, "max_side", "4096"},
		"memory_limit":       {func(c *Config) { c.MemoryLimit = 1 }, "memory_limit", "at least"},
		"width alone":        {func(c *Config) { c.Source, c.Width = "/dev/video0", 640 }, "width", "together"},
		"width of a stream":  {func(c *Config) { c.Width, c.Height = 640, 480 }, "width", "/dev/video"},
		"fourcc":             {func(c *Config) { c.Source, c.FourCC = "/dev/video0", "MJPEG" }, "fourcc", "4 characters"},
	} {
		c := valid()
		test.change(&c)
		err := c.Validate()
		var fault *FieldError
		if !errors.As(err, &fault) || fault.Field != test.field {
			t.Errorf("%s: %v, want a fault in %s", name, err, test.field)
			continue
		}
		wants(t, name, fault.Error(), test.field+": ", test.says)
		if _, err := Open(c, Options{}); err == nil {
			t.Errorf("%s: Open takes it", name)
		}
	}
}

func TestValidateNamesAllFaultsAtOnce(t *testing.T) {
	err := Config{ID: "A", Source: "", FPS: 1e9, MaxSide: 1}.Validate()
	var fields []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		fields = append(fields, e.(*FieldError).Field)
	}
	if want := []string{"id", "source", "fps", "max_side"}; !slices.Equal(fields, want) {
		t.Errorf("faults in %v, want %v", fields, want)
	}
}

func TestValidateTakesWhatIsRight(t *testing.T) {
	star := Polygon{{0.5, 0}, {0.6, 0.4}, {1, 0.5}, {0.6, 0.6}, {0.5, 1}, {0.4, 0.6}, {0, 0.5}, {0.4, 0.4}}
	for _, c := range []Config{
		valid(),
		{ID: "0", Source: "clip.mp4", Loop: true, FPS: 0.1, Privacy: []Polygon{star, star}, MaxSide: 4096},
		{ID: "a", Source: "/dev/v4l/by-id/usb-cam", Width: 1280, Height: 720, FourCC: "MJPG"},
		{ID: "b", Source: "http://h:8080/v.mjpg?user=a&password=b", Username: "u", Password: "p"},
		{ID: "c", Source: "videotestsrc ! appsink"},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", c.ID, err)
		}
	}
}

func TestKindOf(t *testing.T) {
	for source, want := range map[string]Kind{
		"":                             KindUnknown,
		"/srv/clips/door.mp4":          KindPath,
		"clips":                        KindPath,
		"RTSP://h/x":                   KindStream,
		"https://h/x.mjpg":             KindStream,
		"file:///srv/x.mp4":            KindUnknown,
		"/dev/video0":                  KindDevice,
		"gst:v4l2src ! videoconvert":   KindPipeline,
		"nvarguscamerasrc ! nvvidconv": KindPipeline,
		"rtspsrc location=rtsp://h/x ! decodebin": KindPipeline,
	} {
		if got := KindOf(source); got != want {
			t.Errorf("%q: %d, want %d", source, got, want)
		}
	}
}
