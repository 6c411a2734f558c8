package fleet

import (
	"math"
	"strconv"
)

// BurnPartVersion is that of parts that are written; a server refuses newer ones.
const BurnPartVersion = 1

// Bounds of a part: an agent may be somebody else's.
const (
	maxPartValues = 8192
	maxPartSeries = 4096
)

// Validate lists what makes a part no record of a stage, at most 20 faults. What its values mean is the judge's.
func (p *BurnPart) Validate() []FieldError {
	var f faults
	check := func(ok bool, field, text string) {
		if len(f) < 20 {
			f.check(ok, field, text)
		}
	}
	at := func(list string, i int, field string) string { return list + "[" + strconv.Itoa(i) + "]." + field }
	check(p.Version >= 1 && p.Version <= BurnPartVersion, "version", "is not 1 to "+strconv.Itoa(BurnPartVersion))
	check(!p.BeganAt.IsZero(), "began_at", "is missing")
	check(!p.EndedAt.Before(p.BeganAt), "ended_at", "is before began_at")
	check(p.Speed >= 0, "speed", "is below 0")
	check(p.Speed <= 1 || p.Fixture != "", "speed", "is that of a fixture, and the machine is none")
	check(len(p.Measured) <= maxPartValues, "measured", "are more than "+strconv.Itoa(maxPartValues))
	check(len(p.Untold) <= maxPartValues, "untold", "are more than "+strconv.Itoa(maxPartValues))
	check(len(p.Series) <= maxPartSeries, "series", "are more than "+strconv.Itoa(maxPartSeries))
	for i, m := range p.Measured {
		check(m.Check != "", at("measured", i, "check"), "is missing")
		check(m.Component != "", at("measured", i, "component"), "is missing")
		check(m.N >= 0, at("measured", i, "n"), "is below 0")
	}
	for i, u := range p.Untold {
		check(u.Check != "", at("untold", i, "check"), "is missing")
		check(u.Cause != "", at("untold", i, "cause"), "is missing")
	}
	for i, r := range p.Ran {
		check(r.Stress != "", at("ran", i, "stress"), "is missing")
		check(r.Seconds >= 0, at("ran", i, "seconds"), "are below 0")
	}
	for i, s := range p.Series {
		check(s.Name != "" && s.Component != "", at("series", i, "name"), "or component is missing")
		check(s.Bucket > 0 && !math.IsInf(s.Bucket, 0), at("series", i, "bucket_seconds"), "is no length")
		check(len(s.Min) == len(s.Mean) && len(s.Max) == len(s.Mean), at("series", i, "mean"), "has not as many entries as min and max")
	}
	return f
}
