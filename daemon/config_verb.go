package main

import (
	_ "embed"
	"io"
)

type configVerb struct {
	Example exampleVerb `cmd:"" help:"An example configuration in which every key is explained."`
	Schema  schemaVerb  `cmd:"" help:"The JSON Schema of the configuration, for editors."`
}

func (configVerb) Help() string {
	return `  fovea config example > fovea.yaml
  fovea config schema > fovea.schema.json

An editor with a YAML language server checks while you type when the first line of the file is
  # yaml-language-server: $schema=fovea.schema.json`
}

type exampleVerb struct{}

//go:embed fovea.example.yaml
var exampleConfig string

func (exampleVerb) Run(out io.Writer) error {
	_, err := io.WriteString(out, exampleConfig)
	return err
}

type schemaVerb struct{}

//go:embed config.schema.json
var configSchema string

func (schemaVerb) Run(out io.Writer) error {
	_, err := io.WriteString(out, configSchema)
	return err
}
