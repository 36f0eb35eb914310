// Check-rules checks the alert rules as Prometheus reads them: that they can be loaded, that the Kubernetes manifest has
// the same ones, and that the sources know each metric in them.
//
//	check-rules RULES MONITORING SOURCES
//
// It exits 1 if anything does not hold.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/prometheus/prometheus/model/rulefmt"
	"gopkg.in/yaml.v3"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "check-rules:", err)
		os.Exit(1)
	}
}

func run(rules, monitoring, sources string) error {
	groups, errs := rulefmt.ParseFile(rules)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := same(rules, monitoring); err != nil {
		return err
	}
	known, err := source(sources)
	if err != nil {
		return err
	}
	metric := regexp.MustCompile(`sporlog_[a-z_]+`)
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			for _, name := range metric.FindAllString(rule.Expr.Value, -1) {
				if !strings.Contains(known, `"`+name+`"`) {
					return fmt.Errorf("%s: there is no metric %s", rule.Alert.Value, name)
				}
			}
		}
	}
	return nil
}

// same holds the rules against those in a PrometheusRule of the manifest.
func same(rules, monitoring string) error {
	var plain struct{ Groups any }
	data, err := os.ReadFile(rules)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(data, &plain); err != nil {
		return err
	}
	data, err = os.ReadFile(monitoring)
	if err != nil {
		return err
	}
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var document struct {
			Kind string
			Spec struct{ Groups any }
		}
		if err := decoder.Decode(&document); err != nil {
			return fmt.Errorf("%s has no PrometheusRule: %w", monitoring, err)
		}
		if document.Kind != "PrometheusRule" {
			continue
		}
		if !reflect.DeepEqual(document.Spec.Groups, plain.Groups) {
			return fmt.Errorf("%s has other rules than %s", monitoring, rules)
		}
		return nil
	}
}

// source is the text of all Rust files.
func source(folder string) (string, error) {
	var text strings.Builder
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".rs" {
			return err
		}
		data, err := os.ReadFile(path)
		text.Write(data)
		return err
	})
	return text.String(), err
}
