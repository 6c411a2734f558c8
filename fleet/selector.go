package fleet

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	labelKey   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)
	labelValue = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._:-]{0,61}[A-Za-z0-9])?$`)
)

// ValidLabel reports whether a label may be called that, and whether it may have that value; "" is one.
func ValidLabel(key, value string) (keyOK, valueOK bool) {
	return labelKey.MatchString(key), value == "" || labelValue.MatchString(value)
}

// SelectorOp is what a part of a selector asks of a label.
type SelectorOp byte

const (
	LabelEquals  SelectorOp = '='
	LabelDiffers SelectorOp = '!'
	LabelSet     SelectorOp = '+'
	LabelUnset   SelectorOp = '-'
)

// Requirement is one part of a selector.
type Requirement struct {
	Key, Value string
	Op         SelectorOp
}

// ParseSelector reads "rack=r1,gpu!=none,spare,!old"; nothing selects everything. Error MC-API-SELECTOR.
func ParseSelector(s string) ([]Requirement, error) {
	if s == "" {
		return nil, nil
	}
	var out []Requirement
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		r := Requirement{Key: part, Op: LabelSet}
		if k, v, ok := strings.Cut(part, "!="); ok {
			r = Requirement{strings.TrimSpace(k), strings.TrimSpace(v), LabelDiffers}
		} else if k, v, ok := strings.Cut(part, "="); ok {
			r = Requirement{strings.TrimSpace(k), strings.TrimSpace(strings.TrimPrefix(v, "=")), LabelEquals}
		} else if k, ok := strings.CutPrefix(part, "!"); ok {
			r = Requirement{Key: strings.TrimSpace(k), Op: LabelUnset}
		}
		if keyOK, valueOK := ValidLabel(r.Key, r.Value); !keyOK || !valueOK {
			return nil, Errorf(Invalid, "MC-API-SELECTOR", "the selector's part %s is not understood", fmt.Sprintf("%.64q", part)).
				WithHint("write key=value, key!=value, key or !key, with commas between")
		}
		out = append(out, r)
	}
	return out, nil
}

// Selects reports whether labels meet every requirement.
func Selects(rs []Requirement, labels map[string]string) bool {
	for _, r := range rs {
		v, has := labels[r.Key]
		ok := map[SelectorOp]bool{LabelEquals: has && v == r.Value, LabelDiffers: v != r.Value, LabelSet: has, LabelUnset: !has}[r.Op]
		if !ok {
			return false
		}
	}
	return true
}
