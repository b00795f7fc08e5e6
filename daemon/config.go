package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// Config is the configuration file, YAML over the values of defaultConfig. Relative paths are relative to the
// folder of the file. The comments of the fields are the descriptions in the published JSON Schema.
type Config struct {
	// Where samples, model versions, the page's token and the embedded broker's password are kept. Default:
	// systemd's state directory, else /var/lib/fovea, else (not as root) ~/.local/state/fovea.
	StateDir string `yaml:"state_dir,omitempty"`

	// Unix socket on which the verbs of this program speak to the daemon. Default: /run/fovea/fovea.sock where
	// state_dir is /var/lib/fovea, else fovea.sock in state_dir.
	Socket string `yaml:"socket,omitempty"`

	Device    DeviceConfig    `yaml:"device,omitempty"`
	Model     ModelConfig     `yaml:"model,omitempty"`
	Inference InferenceConfig `yaml:"inference,omitempty"`

	// The cameras of this device; one model serves them all, in turn.
	Cameras []CameraConfig `yaml:"cameras,omitempty"`

	Samples SamplesConfig `yaml:"samples,omitempty"`

	Adapt AdaptConfig `yaml:"adapt,omitempty"`

	MQTT MQTTConfig `yaml:"mqtt,omitempty"`
	Web  WebConfig  `yaml:"web,omitempty"`
	Log  LogConfig  `yaml:"log,omitempty"`
}

// DeviceConfig says who this device is among others.
type DeviceConfig struct {
	// Name in topics and dashboards, 1 to 63 of a-z, 0-9 and -. Default: fovea- and 8 hexadecimal digits that
	// this machine keeps.
	ID string `yaml:"id,omitempty"`

	// Your own words for selecting devices, such as site: hall-2.
	Labels map[string]string `yaml:"labels,omitempty"`
}

// ModelConfig says which weights are served, and by what they are computed.
type ModelConfig struct {
	// Folder with model.safetensors, config.json and preprocessor_config.json; "fovea models pull" and "fovea
	// head fit" write such folders.
	Dir string `yaml:"dir,omitempty"`

	// auto takes the first that opens of xla:cuda, xla:cpu and go. go needs no plugin and is several times
	// slower. onnx:cpu and onnx:cuda are ONNX Runtime, taken only where they are asked for.
	Backend string `yaml:"backend,omitempty" jsonschema:"enum=auto,enum=xla:cpu,enum=xla:cuda,enum=onnx:cpu,enum=onnx:cuda,enum=go"`

	Plugins PluginsConfig `yaml:"plugins,omitempty"`
}

// PluginsConfig names the shared libraries of the backends xla:cpu, xla:cuda and onnx (onnx:cpu, or both where it is
// built for CUDA, its providers beside it). Default: pjrt_cpu.so, pjrt_cuda.so and libonnxruntime.so in
// /usr/lib/fovea, each with its checksum file beside it.
type PluginsConfig struct {
	CPU  PluginConfig `yaml:"cpu,omitempty"`
	CUDA PluginConfig `yaml:"cuda,omitempty"`
	ONNX PluginConfig `yaml:"onnx,omitempty"`
}

// PluginConfig is a PJRT plugin or ONNX Runtime, a shared library that runs inside the daemon: its content is pinned.
type PluginConfig struct {
	// The file.
	Path string `yaml:"path,omitempty"`

	// Its checksum in hexadecimal. Default: the first word of the file of the same name with .sha256 added.
	SHA256 string `yaml:"sha256,omitempty"`
}

// InferenceConfig says what is computed of a frame.
type InferenceConfig struct {
	// Every how many frames of a camera the relevance map (what the model looked at) is computed too, which
	// takes about 3 times as long as a plain frame. 0: never.
	RelevanceEvery int `yaml:"relevance_every,omitempty" jsonschema:"minimum=0,maximum=1000000"`
	// Frames of each camera that are classified a second, at most; the newest each time. 0: all that the machine can.
	// An adaptation runs on what the cameras leave.
	FPS float64 `yaml:"fps,omitempty" jsonschema:"minimum=0,maximum=1000"`
	// A second look inside a box around the object, which is found without labels (the model has to be a
	// self-supervised one, such as DINOv2); both looks' log-probabilities are added. on: every frame with an object,
	// about twice the work; auto: where the first look is unsure (foveal_below) and fps, or else what the cameras send,
	// leaves the time, and no adaptation runs, which takes what is left; off: never.
	Foveal string `yaml:"foveal,omitempty" jsonschema:"enum=auto,enum=on,enum=off"`
	// Probability of the likeliest class, 0 to 1, below which auto looks again.
	FovealBelow float64 `yaml:"foveal_below,omitempty" jsonschema:"minimum=0,maximum=1"`
}

// SamplesConfig says which frames are kept to learn from.
type SamplesConfig struct {
	// Most megabytes on disk; the most redundant pictures go first. 0: none are kept.
	Megabytes int `yaml:"megabytes,omitempty" jsonschema:"minimum=0,maximum=1000000"`

	// Days after which a picture goes; 0: never.
	MaxAgeDays int `yaml:"max_age_days,omitempty" jsonschema:"minimum=0,maximum=36500"`

	// Least time between two kept frames of one camera.
	Every time.Duration `yaml:"every,omitempty"`

	// Cosine distance, 0 to 2, to the nearest kept frame of the camera below which a frame is never kept.
	Apart float64 `yaml:"apart,omitempty" jsonschema:"minimum=0,maximum=2"`

	// Cosine distance to the nearest kept frame of the camera from which on a frame is kept for its novelty
	// alone. Between apart and novel one of the following must speak for it.
	Novel float64 `yaml:"novel,omitempty" jsonschema:"minimum=0,maximum=2"`

	// The model hesitates: its two highest probabilities differ by less than this.
	Margin float64 `yaml:"margin,omitempty" jsonschema:"minimum=0,maximum=1"`

	// The model looks beside the object: less than this share of its relevance is on it.
	Relevance float64 `yaml:"relevance,omitempty" jsonschema:"minimum=0,maximum=1"`

	// Its class, or its time of day, has less than this part of an even share of what is kept.
	Rare float64 `yaml:"rare,omitempty" jsonschema:"minimum=0,maximum=1"`
}

// CameraConfig is one camera.
type CameraConfig struct {
	capture.Config `yaml:",inline"`

	// File with the password of the stream, so that it stands neither here nor in a command line. A name
	// without / is looked up in systemd's credentials first.
	PasswordFile string `yaml:"password_file,omitempty"`
}

// MQTTConfig is the connection to a broker.
type MQTTConfig struct {
	// mqtt://host:1883 or mqtts://host:8883 (tcp, ssl and tls are the same words). Empty: the daemon runs a small broker of
	// its own on loopback, with a random password in the state folder.
	URL string `yaml:"url,omitempty"`

	Username string `yaml:"username,omitempty"`

	// File with the password. A name without / is looked up in systemd's credentials first.
	PasswordFile string `yaml:"password_file,omitempty"`

	// Certificates in PEM of those who may have signed the broker's. Default: the system's.
	CAFile string `yaml:"ca_file,omitempty"`

	// This device's own certificate and key in PEM, where the broker wants one.
	CertFile string `yaml:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file,omitempty"`

	// Where the embedded broker listens, on loopback only.
	Listen string `yaml:"listen,omitempty"`

	// First level of all topics.
	Root string `yaml:"root,omitempty"`

	// How Home Assistant is told of this device: device (2024.12 and later), component (older), off.
	Discovery string `yaml:"discovery,omitempty" jsonschema:"enum=device,enum=component,enum=off"`

	// Whether pictures may leave through the broker at all. If so, and if allow has snapshot, that command publishes
	// the newest picture of a camera.
	Images bool `yaml:"images,omitempty"`

	// The commands that are taken from the broker. Default: health, adapt, cancel, rollback.
	Allow []string `yaml:"allow,omitempty" jsonschema:"enum=adapt,enum=cancel,enum=promote,enum=rollback,enum=auto,enum=snapshot,enum=health,enum=reload"`
}

// WebConfig is the page, its API, /metrics and /healthz.
type WebConfig struct {
	// Address and port; off: no page. Anywhere but on loopback it needs tls_cert and tls_key, and asks for the
	// token ("fovea token") for everything but /healthz.
	Listen string `yaml:"listen,omitempty"`

	// Certificate and key in PEM.
	TLSCert string `yaml:"tls_cert,omitempty"`
	TLSKey  string `yaml:"tls_key,omitempty"`

	// Names by which browsers may call the page, beside localhost, this machine's name and IP addresses.
	Hosts []string `yaml:"hosts,omitempty"`
}

// LogConfig is the log, on standard error.
type LogConfig struct {
	Level string `yaml:"level,omitempty" jsonschema:"enum=debug,enum=info,enum=warn,enum=error"`

	// text, or json for machines.
	Format string `yaml:"format,omitempty" jsonschema:"enum=text,enum=json"`
}

func defaultConfig() *Config {
	return &Config{
		StateDir:  defaultStateDir(),
		Model:     ModelConfig{Backend: model.BackendAuto},
		Inference: InferenceConfig{RelevanceEvery: 5, Foveal: fovealAuto, FovealBelow: .9},
		Samples:   defaultSamples(),
		Adapt:     defaultAdapt(),
		MQTT:      MQTTConfig{Root: "fovea", Listen: "127.0.0.1:1883", Discovery: "device", Allow: []string{"health", "adapt", "cancel", "rollback"}},
		Web:       WebConfig{Listen: "127.0.0.1:8080"},
		Log:       LogConfig{Level: "info", Format: "text"},
	}
}

func defaultSamples() SamplesConfig {
	t := store.DefaultTaste
	return SamplesConfig{
		Megabytes: 256, MaxAgeDays: 90,
		Every: t.Every, Apart: t.Apart, Novel: t.Novel, Margin: t.Margin, Relevance: t.Relevance, Rare: t.Rare,
	}
}

func defaultStateDir() string {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if os.Geteuid() != 0 {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, ".local", "state", "fovea")
		}
	}
	return systemState
}

// systemState is the state folder of the system's daemon.
const systemState = "/var/lib/fovea"

// systemConfig is read by verbs that are given no --config, if it is there.
const systemConfig = "/etc/fovea/fovea.yaml"

// loadConfig reads a configuration file; "" is systemConfig where that exists, else the defaults. A *configError
// names every fault of the file. Files that the configuration names need not exist: see warnings.
func loadConfig(file string) (*Config, error) {
	given := file != ""
	if !given {
		file = systemConfig
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return defaultConfig(), nil
	}
	if err != nil {
		return nil, &configError{file, []fault{{problem: fmt.Sprintf("cannot be read: %v", err)}}}
	}
	return parseConfig(data, file)
}

func parseConfig(data []byte, file string) (*Config, error) {
	c := defaultConfig()
	d := decode(data, c)
	c.check(func(field, format string, args ...any) {
		for _, f := range d.faults {
			if f.field == field || strings.HasPrefix(field, f.field+".") && f.field != "" { // it could not be read, and that was said
				return
			}
		}
		line, column := d.position(field)
		d.faults = append(d.faults, fault{line, column, field, fmt.Sprintf(format, args...)})
	})
	if len(d.faults) > 0 {
		slices.SortStableFunc(d.faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
		return nil, &configError{file, d.faults}
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("folder of %s: %w", file, err)
	}
	c.resolve(dir)
	return c, nil
}

var (
	idPattern   = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	rootPattern = regexp.MustCompile(`^[^+#\x00/$][^+#\x00/]{0,63}$`)
	hexPattern  = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
)

// check reports what is wrong with the values themselves, by field.
func (c *Config) check(fault func(field, format string, args ...any)) {
	oneOf := func(field, value string, known ...string) {
		for _, k := range known {
			if value == k {
				return
			}
		}
		fault(field, "%q must be %s", value, strings.Join(known, ", "))
	}
	together := func(a, b, valueA, valueB string) {
		if (valueA == "") != (valueB == "") {
			missing := b
			if valueA == "" {
				a, missing = b, a
			}
			fault(a, "needs %s beside it", missing[strings.LastIndex(missing, ".")+1:])
		}
	}

	if c.StateDir == "" {
		fault("state_dir", "must not be empty")
	}
	switch id := c.Device.ID; {
	case id == "all" || id == "set" || id == "state":
		fault("device.id", "%q is a reserved word of the topics; take another", id)
	case id != "" && !idPattern.MatchString(id):
		fault("device.id", "%q must be 1 to 63 of a-z, 0-9 and -", id)
	}
	oneOf("model.backend", c.Model.Backend, model.BackendNames...)
	for name, p := range map[string]PluginConfig{"cpu": c.Model.Plugins.CPU, "cuda": c.Model.Plugins.CUDA, "onnx": c.Model.Plugins.ONNX} {
		if p.SHA256 != "" && !hexPattern.MatchString(p.SHA256) {
			fault("model.plugins."+name+".sha256", "must be 64 hexadecimal digits, as sha256sum prints them")
		}
		if p.SHA256 != "" && p.Path == "" {
			fault("model.plugins."+name+".sha256", "needs path beside it")
		}
	}
	if f := c.Inference.FPS; !(f >= 0 && f <= 1000) {
		fault("inference.fps", "%g, want 0 (no limit) to 1000", f)
	}
	oneOf("inference.foveal", c.Inference.Foveal, fovealAuto, fovealOn, fovealOff)
	if f := c.Inference.FovealBelow; !(f >= 0 && f <= 1) {
		fault("inference.foveal_below", "%g, want 0 to 1", f)
	}
	if c.Inference.RelevanceEvery < 0 || c.Inference.RelevanceEvery > 1_000_000 {
		fault("inference.relevance_every", "%d must be between 0 (never) and 1000000", c.Inference.RelevanceEvery)
	}

	c.Samples.check(fault)
	c.Adapt.check(fault)

	first := map[string]int{}
	for i, camera := range c.Cameras {
		at := fmt.Sprintf("cameras[%d]", i)
		if err := camera.Validate(); err != nil {
			for _, e := range unjoin(err) {
				var f *capture.FieldError
				if errors.As(e, &f) {
					fault(at+"."+f.Field, "%s", f.Problem)
				} else {
					fault(at, "%v", e)
				}
			}
		}
		if camera.PasswordFile != "" && capture.KindOf(camera.Source) != capture.KindStream {
			fault(at+".password_file", "only a stream (rtsp://, http://, ...) takes a password")
		}
		if camera.ID == "set" || camera.ID == "state" {
			fault(at+".id", "%q is a reserved word of the topics; take another", camera.ID)
		}
		if j, twice := first[camera.ID]; twice && camera.ID != "" {
			fault(at+".id", "%q is the id of cameras[%d] already; each needs its own", camera.ID, j)
		} else {
			first[camera.ID] = i
		}
	}

	if c.MQTT.URL != "" {
		u, err := url.Parse(c.MQTT.URL)
		switch {
		case err != nil:
			fault("mqtt.url", "is not a valid URL; write it like mqtts://broker.example:8883 and put the password into password_file")
		case !brokerSchemes[u.Scheme]:
			fault("mqtt.url", "cannot speak %q; use mqtt:// or mqtts://", u.Scheme)
		case u.Hostname() == "":
			fault("mqtt.url", "names no host; write it like mqtts://broker.example:8883")
		case u.User != nil:
			fault("mqtt.url", "must not hold the user name or password; put them into username and password_file")
		}
	} else if !isLoopback(c.MQTT.Listen) {
		fault("mqtt.listen", "%q must be a loopback address such as 127.0.0.1:1883; for others run a broker and give its url", c.MQTT.Listen)
	}
	if c.MQTT.URL == "" && c.MQTT.Username+c.MQTT.PasswordFile+c.MQTT.CAFile+c.MQTT.CertFile != "" {
		fault("mqtt", "names a user or certificate but no url: which broker?")
	}
	together("mqtt.cert_file", "mqtt.key_file", c.MQTT.CertFile, c.MQTT.KeyFile)
	if !rootPattern.MatchString(c.MQTT.Root) {
		fault("mqtt.root", "%q must be one topic level of 1 to 64 characters, without / + #", c.MQTT.Root)
	}
	oneOf("mqtt.discovery", c.MQTT.Discovery, "device", "component", "off")
	for i, verb := range c.MQTT.Allow {
		oneOf(fmt.Sprintf("mqtt.allow[%d]", i), verb, "adapt", "cancel", "promote", "rollback", "auto", "snapshot", "health", "reload")
	}

	together("web.tls_cert", "web.tls_key", c.Web.TLSCert, c.Web.TLSKey)
	if c.Web.Listen != webOff {
		if _, port, err := net.SplitHostPort(c.Web.Listen); err != nil || port == "" {
			fault("web.listen", "%q must be an address and a port such as 127.0.0.1:8080, or off", c.Web.Listen)
		} else if !isLoopback(c.Web.Listen) && c.Web.TLSCert == "" {
			fault("web.listen", "%q can be reached from other machines: give tls_cert and tls_key, or listen on 127.0.0.1 and use an SSH tunnel or a proxy", c.Web.Listen)
		}
	}
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
}

func (c SamplesConfig) check(fault func(field, format string, args ...any)) {
	if c.Megabytes < 0 || c.Megabytes > 1_000_000 {
		fault("samples.megabytes", "%d must be between 0 (none are kept) and 1000000", c.Megabytes)
	}
	if c.MaxAgeDays < 0 || c.MaxAgeDays > 36500 {
		fault("samples.max_age_days", "%d must be between 0 (no bound) and 36500", c.MaxAgeDays)
	}
	if c.Every < 0 {
		fault("samples.every", "%v must not be negative", c.Every)
	}
	for _, f := range []struct {
		name    string
		v, most float64
	}{{"apart", c.Apart, 2}, {"novel", c.Novel, 2}, {"margin", c.Margin, 1}, {"relevance", c.Relevance, 1}, {"rare", c.Rare, 1}} {
		if !(f.v >= 0 && f.v <= f.most) {
			fault("samples."+f.name, "%v must be between 0 and %v", f.v, f.most)
		}
	}
}

// webOff in WebConfig.Listen: no page.
const webOff = "off"

var brokerSchemes = map[string]bool{
	"mqtt": true, "mqtts": true, "tcp": true, "ssl": true, "tls": true,
}

// isLoopback says whether only this machine reaches a host:port.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// resolve makes relative paths absolute from dir.
func (c *Config) resolve(dir string) {
	absolute := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	secret := func(p *string) {
		if credential := filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), *p); *p != "" && !strings.Contains(*p, "/") && filepath.IsAbs(credential) {
			if _, err := os.Stat(credential); err == nil {
				*p = credential
			}
		}
		absolute(p)
	}
	absolute(&c.StateDir)
	absolute(&c.Socket)
	absolute(&c.Model.Dir)
	absolute(&c.Model.Plugins.CPU.Path)
	absolute(&c.Model.Plugins.CUDA.Path)
	for i := range c.Cameras {
		camera := &c.Cameras[i]
		if capture.KindOf(camera.Source) == capture.KindPath {
			absolute(&camera.Source)
		}
		absolute(&camera.Grabber)
		secret(&camera.PasswordFile)
	}
	for _, p := range []*string{&c.MQTT.PasswordFile, &c.MQTT.KeyFile, &c.Web.TLSKey} {
		secret(p)
	}
	for _, p := range []*string{&c.MQTT.CAFile, &c.MQTT.CertFile, &c.Web.TLSCert} {
		absolute(p)
	}
}

// readSecret reads a password file, without the newline at its end.
func readSecret(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if len(data) > 4096 {
		return "", fmt.Errorf("%s holds %d bytes, which is no password", file, len(data))
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}
