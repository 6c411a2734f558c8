//go:build !ramdisk

package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestExamplesForCI reads the workflows that docs show for CI servers: they are YAML, and run the program and keep what it writes.
func TestExamplesForCI(t *testing.T) {
	b, err := os.ReadFile("../../docs/operate/burn-in-ci.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(b, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d examples, want one for GitHub and one for GitLab", len(blocks))
	}
	var github struct {
		On          map[string]any    `yaml:"on"`
		Name        string            `yaml:"name"`
		Permissions map[string]string `yaml:"permissions"`
		Jobs        map[string]struct {
			RunsOn  []string `yaml:"runs-on"`
			Timeout int      `yaml:"timeout-minutes"`
			Steps   []struct {
				Name, If, Uses, Run string
				With                map[string]any
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(blocks[0][1], &github, yaml.DisallowUnknownField()); err != nil {
		t.Fatal(err)
	}
	if s := github.Jobs["smoke"].Steps; len(s) != 4 || !regexp.MustCompile(`agent burn --profile smoke .*--junit junit.xml --sarif burn-in.sarif --html report.html`).MatchString(s[0].Run) || s[3].With["sarif_file"] != "burn-in.sarif" {
		t.Errorf("%+v", s)
	}
	var gitlab map[string]struct {
		Stage, Timeout string
		Tags, Script   []string
		AllowFailure   struct {
			ExitCodes []int `yaml:"exit_codes"`
		} `yaml:"allow_failure"`
		Artifacts struct {
			When     string
			ExpireIn string `yaml:"expire_in"`
			ExposeAs string `yaml:"expose_as"`
			Paths    []string
			Reports  map[string]string
		}
	}
	if err := yaml.UnmarshalWithOptions(blocks[1][1], &gitlab, yaml.DisallowUnknownField()); err != nil {
		t.Fatal(err)
	}
	if j := gitlab["burn-in"]; len(j.Script) != 1 || j.Artifacts.Reports["junit"] != "junit.xml" || len(j.AllowFailure.ExitCodes) != 1 || j.AllowFailure.ExitCodes[0] != exitUnsure {
		t.Errorf("%+v", j)
	}
}
