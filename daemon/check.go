package main

import (
	"fmt"
	"io"
	"os"

	"github.com/seed-a98b2d25/fovea/capture"
)

type checkVerb struct {
	Config string `short:"c" help:"Configuration file (default: /etc/fovea/fovea.yaml)." placeholder:"FILE"`
}

func (checkVerb) Help() string {
	return `Names every fault at once, with file, line and column, and ends with 78 if there is any.
Files that the configuration names and that are not there are told too, but are no fault: the daemon
runs without them and says on its page what is missing.

  fovea check --config fovea.yaml
  fovea check --config new.yaml && mv new.yaml /etc/fovea/fovea.yaml && systemctl reload fovea`
}

func (v checkVerb) Run(out io.Writer) error {
	c, err := loadConfig(v.Config)
	if err != nil {
		return err
	}
	for _, m := range c.missing() {
		fmt.Fprintln(out, "missing:", m)
	}
	fmt.Fprintf(out, "%s is right: %d cameras, broker %s, page %s\n",
		firstOf(v.Config, systemConfig), len(c.Cameras), firstOf(c.MQTT.URL, "embedded on "+c.MQTT.Listen), c.Web.Listen)
	return nil
}

// missing tells what the configuration does not name, and which files it names that are not there, a sentence
// each that says what to do. None of it keeps the daemon from running.
func (c *Config) missing() []string {
	all := []string{}
	absent := func(file, format string, args ...any) {
		if _, err := os.Stat(file); file != "" && err != nil {
			all = append(all, fmt.Sprintf(format, args...)+fmt.Sprintf(" (%v)", err))
		}
	}
	if len(c.Cameras) == 0 {
		all = append(all, "No camera: add one to the configuration under cameras, such as \"{id: door, source: rtsp://10.0.0.7/stream1}\".")
	}
	if c.Model.Dir == "" {
		all = append(all, "No model: get one with \"fovea models pull hf:facebook/deit-small-patch16-224 --out DIR\", or fit a head to your own classes with \"fovea head fit\", and name its folder in model.dir. \"fovea config example\" shows both; a running daemon reads the file again at SIGHUP.")
	}
	absent(c.Model.Dir, "The model folder is not there: correct model.dir, or get a model with \"fovea models pull\"")
	absent(c.Model.Plugins.CPU.Path, "The plugin of xla:cpu is not there: correct model.plugins.cpu.path")
	absent(c.Model.Plugins.CUDA.Path, "The plugin of xla:cuda is not there: correct model.plugins.cuda.path")
	absent(c.Model.Plugins.ONNX.Path, "The library of onnx:cpu and onnx:cuda is not there: correct model.plugins.onnx.path")
	for _, camera := range c.Cameras {
		if capture.KindOf(camera.Source) == capture.KindPath {
			absent(camera.Source, "The file of camera %s is not there: correct its source", camera.ID)
		}
		absent(camera.PasswordFile, "The password file of camera %s is not there: correct password_file", camera.ID)
	}
	absent(c.MQTT.PasswordFile, "The broker's password file is not there: correct mqtt.password_file")
	absent(c.MQTT.CAFile, "The certificates that vouch for the broker are not there: correct mqtt.ca_file")
	absent(c.MQTT.CertFile, "The certificate for the broker is not there: correct mqtt.cert_file")
	absent(c.MQTT.KeyFile, "The key for the broker is not there: correct mqtt.key_file")
	absent(c.Web.TLSCert, "The page's certificate is not there: correct web.tls_cert")
	absent(c.Web.TLSKey, "The page's key is not there: correct web.tls_key")
	return all
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
