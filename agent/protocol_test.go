package agent

import (
	"strings"
	"testing"
)

func FuzzDecodeTask(f *testing.F) {
	f.Add([]byte(`{"operation":"0197","index":3,"try":1,"step":"inventory","params":{"a":1},"limit_seconds":600}`))
	f.Add([]byte(`{"operation":"0197","index":3,"try":1,"step":"erase-disks","limit_seconds":600,"abort":true}`))
	f.Add([]byte(`{"operation":"0197","index":-1,"try":1,"step":"inventory","limit_seconds":600} {}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		task, err := DecodeTask(b)
		if err != nil {
			return
		}
		if task.Operation == "" || task.Step == "" || task.Index < 0 || task.Try < 0 || task.LimitSeconds < 0 {
			t.Errorf("accepted %q as %+v", b, task)
		}
	})
}

func TestDecodeTaskRefuses(t *testing.T) {
	ok := `{"operation":"o","index":0,"try":1,"step":"inventory","limit_seconds":1`
	for name, text := range map[string]string{
		"nothing":          ``,
		"null":             `null`,
		"no operation":     `{"index":0,"try":1,"step":"inventory","limit_seconds":1}`,
		"no step":          `{"operation":"o","index":0,"try":1,"limit_seconds":1}`,
		"negative index":   `{"operation":"o","index":-1,"try":1,"step":"inventory","limit_seconds":1}`,
		"unknown field":    ok + `,"shell":"rm"}`,
		"second value":     ok + `}{}`,
		"params as text":   ok + `,"params":"x"}`,
		"limit of a year":  `{"operation":"o","index":0,"try":1,"step":"inventory","limit_seconds":31536000}`,
		"cut short":        ok,
		"long operation":   strings.Replace(ok, `"o"`, `"`+strings.Repeat("o", 65)+`"`, 1) + `}`,
		"more than is fit": `{"operation":"` + strings.Repeat(" ", maxTask) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if task, err := DecodeTask([]byte(text)); err == nil {
				t.Errorf("accepted as %+v", task)
			}
		})
	}
	if _, err := DecodeTask([]byte(ok + `}`)); err != nil {
		t.Errorf("the good one: %v", err)
	}
}
