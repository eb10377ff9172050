// Package recipes holds the recipes beside it: commented examples for real models, and those of
// `ringtail demo`, which are part of the program.
package recipes

import "embed"

// Demo holds demo/sft.yaml, demo/reward.yaml and demo/ppo.yaml.
//
//go:embed demo/*.yaml
var Demo embed.FS
