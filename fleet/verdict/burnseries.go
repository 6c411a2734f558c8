package verdict

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// mostBuckets is how many buckets a series of a report has at most: as many as a plot has pixels to show, and 72 hours take no more room than one.
const mostBuckets = 240

// mergeSeries joins the series of all parts by name and component. Time in which nothing was sampled stays empty.
func mergeSeries(parts []fleet.BurnPart) []fleet.Series {
	type key struct{ name, component string }
	by := map[key][]fleet.Series{}
	var order []key
	for _, p := range parts {
		for _, s := range p.Series {
			if !(s.Bucket > 0) || len(s.Mean) == 0 || len(s.Min) != len(s.Mean) || len(s.Max) != len(s.Mean) {
				continue
			}
			k := key{s.Name, s.Component}
			if by[k] == nil {
				order = append(order, k)
			}
			by[k] = append(by[k], s)
		}
	}
	var out []fleet.Series
	for _, k := range order {
		out = append(out, joinSeries(by[k]))
	}
	slices.SortStableFunc(out, func(a, b fleet.Series) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return fleet.CompareNatural(a.Component, b.Component)
	})
	return out
}

func joinSeries(all []fleet.Series) fleet.Series {
	out := fleet.Series{Name: all[0].Name, Component: all[0].Component, Unit: all[0].Unit, Start: all[0].Start, Bucket: all[0].Bucket}
	end := out.Start
	for _, s := range all {
		if s.Start.Before(out.Start) {
			out.Start = s.Start
		}
		if e := s.Start.Add(seconds(s.Bucket * float64(len(s.Mean)))); e.After(end) {
			end = e
		}
		out.Bucket = math.Max(out.Bucket, s.Bucket)
	}
	span := end.Sub(out.Start).Seconds()
	for span/out.Bucket > mostBuckets {
		out.Bucket *= 2
	}
	n := max(1, int(math.Ceil(span/out.Bucket-1e-9)))
	sum, weight := make([]float64, n), make([]float64, n)
	out.Mean, out.Min, out.Max = make([]*float64, n), make([]*float64, n), make([]*float64, n)
	for _, s := range all {
		offset := s.Start.Sub(out.Start).Seconds()
		for i, v := range s.Mean {
			if v == nil || s.Min[i] == nil || s.Max[i] == nil {
				continue
			}
			at := min(n-1, max(0, int((offset+float64(i)*s.Bucket)/out.Bucket)))
			sum[at], weight[at] = sum[at]+*v*s.Bucket, weight[at]+s.Bucket
			if low := *s.Min[i]; out.Min[at] == nil || low < *out.Min[at] {
				out.Min[at] = &low
			}
			if high := *s.Max[i]; out.Max[at] == nil || high > *out.Max[at] {
				out.Max[at] = &high
			}
		}
	}
	for i := range sum {
		if weight[i] > 0 {
			v := sum[i] / weight[i]
			out.Mean[i] = &v
		}
	}
	return out
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
