package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// dashboard is what we look at of a Grafana dashboard.
type dashboard struct {
	UID    string `json:"uid"`
	Panels []struct {
		ID      int    `json:"id"`
		Title   string `json:"title"`
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	} `json:"panels"`
}

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	all := map[string]dashboard{}
	files, err := filepath.Glob("../deploy/grafana/*.json")
	if err != nil || len(files) != 2 {
		t.Fatalf("dashboards %v, %v", files, err)
	}
	for _, file := range files {
		var d dashboard
		if err := json.Unmarshal([]byte(read(t, file)), &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[file] = d
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fullMetrics are all metrics that a daemon can have, each with its labels and
// their values.
func fullMetrics(t *testing.T) map[string]map[string][]string {
	t.Helper()
	var h fleet.Health
	fill(reflect.ValueOf(&h).Elem())
	h.Cameras = map[string]fleet.Camera{"door": h.Cameras[""]}
	h.Model.SHA256 = "0a"
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	d.metrics = newMetrics(d)
	d.status.Store(&status{Health: h, Cameras: []cameraStatus{{ID: "door", Phase: capture.Running.String()}}})
	families, err := d.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string][]string{}
	for _, f := range families {
		labels := map[string][]string{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
			}
		}
		all[f.GetName()] = labels
	}
	return all
}

// Every metric, label and word that the configurations of deploy name is there.
func TestDeployNamesWhatThereIs(t *testing.T) {
	have := fullMetrics(t)
	var (
		name     = regexp.MustCompile(`\bfovea_[a-z0-9_]+`)
		selector = regexp.MustCompile(`(fovea_[a-z0-9_]+)\{([^}]*)\}`)
		matcher  = regexp.MustCompile(`([a-z_]+)\s*(=~|!=|=)\s*"([^"]*)"`)
		named    = 0
	)
	check := func(where, text string) {
		for _, metric := range name.FindAllString(text, -1) {
			named++
			if have[metric] == nil {
				t.Errorf("%s: there is no metric %s", where, metric)
			}
		}
		for _, s := range selector.FindAllStringSubmatch(text, -1) {
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				key, value := m[1], m[3]
				if key == "instance" || key == "job" { // Prometheus adds them
					continue
				}
				if values := have[s[1]][key]; values == nil || key == "result" && !slices.Contains(values, value) {
					t.Errorf("%s: %s has no %s=%q, but %v", where, s[1], key, value, values)
				}
			}
		}
	}
	for file, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				check(file+": "+p.Title, target.Expr)
			}
		}
	}
	for _, file := range []string{"../deploy/prometheus/fovea.rules.yml", "../deploy/prometheus/fovea.rules_test.yml"} {
		check(file, read(t, file))
	}
	if named < 60 {
		t.Errorf("only %d names were found", named)
	}

	var schema struct{ Properties map[string]any }
	if err := json.Unmarshal([]byte(read(t, "../docs/schema/health.json")), &schema); err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`(?:timestamp_)?path = "([a-z_]+)"`).FindAllStringSubmatch(read(t, "../deploy/telegraf/telegraf.conf"), -1)
	for _, p := range paths {
		if schema.Properties[p[1]] == nil {
			t.Errorf("telegraf.conf: the health JSON has no field %s", p[1])
		}
	}
	if len(paths) < 8 {
		t.Errorf("telegraf.conf: %d paths", len(paths))
	}
}

func TestDashboardsAreInOrder(t *testing.T) {
	for file, d := range dashboards(t) {
		taken, ids := map[[2]int]string{}, map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || d.UID == "" {
				t.Errorf("%s: panel %d %q", file, p.ID, p.Title)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %q covers %q at %d, %d", file, p.Title, other, x, y)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

// prometheusConfig is that of deploy, with the paths of a real machine replaced by those of the test.
func prometheusConfig(t *testing.T, token, ca, local string) (file string) {
	t.Helper()
	dir := t.TempDir()
	config := read(t, "../deploy/prometheus/prometheus.yml")
	for old, now := range map[string]string{
		"/etc/prometheus/fovea-token": token, "/etc/prometheus/fovea-ca.pem": ca, "127.0.0.1:8080": local, "_interval: 30s": "_interval: 1s",
	} {
		if !strings.Contains(config, old) {
			t.Fatalf("prometheus.yml does not name %s any more", old)
		}
		config = strings.ReplaceAll(config, old, now)
	}
	for name, text := range map[string]string{"prometheus.yml": config, "fovea.rules.yml": read(t, "../deploy/prometheus/fovea.rules.yml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "prometheus.yml")
}

// promtool runs it and wants it to be content.
func promtool(t *testing.T, stdin io.Reader, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	command := exec.Command("promtool", args...)
	command.Stdin = stdin
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtool(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(empty, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", "../deploy/prometheus/fovea.rules.yml")
	promtool(t, nil, "test", "rules", "../deploy/prometheus/fovea.rules_test.yml")
	promtool(t, nil, "check", "config", prometheusConfig(t, empty, empty, "127.0.0.1:1"))

	// Grafana's own variables stand in the dashboards' expressions.
	rules := "groups:\n- name: dashboards\n  rules:\n"
	for _, d := range dashboards(t) {
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				expr, err := json.Marshal(strings.NewReplacer("$__rate_interval", "5m", "$instance", "x").Replace(target.Expr))
				if err != nil {
					t.Fatal(err)
				}
				rules += fmt.Sprintf("  - record: %s:panel%d:%d\n    expr: %s\n", strings.ReplaceAll(d.UID, "-", "_"), p.ID, i, expr)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "dashboards.yml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", file)
}

// Prometheus with the configuration of deploy reads two daemons: one as from the network, with TLS and the
// token, and one on loopback.
func TestPrometheusScrapes(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip("prometheus is not installed: apt-get install prometheus")
	}
	ca := realparts.NewAuthority(t)
	certificate, key := ca.Issue("127.0.0.1", time.Now().Add(time.Hour))
	far := start(t, fmt.Sprintf("device: {id: far}\nweb: {listen: \"0.0.0.0:0\", tls_cert: %q, tls_key: %q}", certificate, key))
	near := start(t, fmt.Sprintf("device: {id: near}\nmodel: {dir: %q, backend: go}\ncameras:\n  - {id: door, source: %q, fps: 8, loop: true, grabber: GRAB}\n", tinyModel(t), pictures(t)))
	near.wait("an answer", func() bool { return near.state().camera("door").Classified > 0 })

	_, text := near.get("/metrics")
	for _, want := range []string{"fovea_camera_frames_total{camera=\"door\"}", "fovea_model_version{model="} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	promtool(t, strings.NewReader(text), "check", "metrics")

	farPage, err := url.Parse(far.page())
	if err != nil {
		t.Fatal(err)
	}
	config := prometheusConfig(t, filepath.Join(far.dir, "state", tokenFile), ca.File, strings.TrimPrefix(near.page(), "http://"))
	dir := filepath.Dir(config)
	if err := os.Mkdir(filepath.Join(dir, "devices"), 0o700); err != nil {
		t.Fatal(err)
	}
	target := fmt.Sprintf(`[{"targets": ["127.0.0.1:%s"], "labels": {"instance": "far", "site": "hall-2"}}]`, farPage.Port())
	if err := os.WriteFile(filepath.Join(dir, "devices", "hall-2.json"), []byte(target), 0o600); err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + realparts.FreePort(t)
	var log bytes.Buffer
	prometheus := exec.Command("prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	prometheus.Stdout, prometheus.Stderr = &log, &log
	if err := prometheus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		prometheus.Process.Kill()
		prometheus.Wait()
		if t.Failed() {
			t.Logf("prometheus: %s", &log)
		}
	})

	// query returns the samples' values by instance.
	query := func(expr string) map[string]string {
		answer, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			return nil
		}
		defer answer.Body.Close()
		var reply struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  [2]any
				}
			}
		}
		if json.NewDecoder(answer.Body).Decode(&reply) != nil {
			return nil
		}
		values := map[string]string{}
		for _, r := range reply.Data.Result {
			values[r.Metric["instance"]], _ = r.Value[1].(string)
		}
		return values
	}
	nearName := strings.TrimPrefix(near.page(), "http://")
	near.wait("both scraped", func() bool { up := query("up"); return up["far"] == "1" && up[nearName] == "1" })
	if got := query(`fovea_uptime_seconds{site="hall-2"}`); len(got) != 1 || got["far"] == "" {
		t.Errorf("by its site: %v", got)
	}
	near.wait("frames counted", func() bool { v := query("fovea_camera_frames_total")[nearName]; return v != "" && v != "0" })
	near.wait("the rules evaluated", func() bool {
		answer, err := http.Get("http://" + address + "/api/v1/rules")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return strings.Count(string(body), `"health":"ok"`) >= 10
	})
	if got := query(`ALERTS{alertname="FoveaDeviceOffline"}`); len(got) != 0 {
		t.Errorf("alerts for devices that are there: %v", got)
	}
}
