package gpu

import (
	"errors"
	"fmt"
	"math"
)

// Limits of what is believed of a child that loads GPUs.
const (
	maxTiles    = 4096
	maxOddities = 64
	maxMeasures = 1024
)

// loadRequest has a child open GPUs and get ready for a stress. It answers with ready.
type loadRequest struct {
	Stress string `json:"stress"`
	// Library is CUDA's; "" is the loader's.
	Library string `json:"library,omitempty"`
	// GPUs are PCI addresses; only the stress of peers has more than one.
	GPUs []string `json:"gpus"`
}

// ready says that a child can begin.
type ready struct {
	CUDA string `json:"cuda"`
	// Seconds is how long the driver compiled the kernels.
	Seconds float64 `json:"seconds"`
	// Step is how many nanoseconds one step of each kernel takes at least, launch and all.
	Step map[string]int64 `json:"step,omitempty"`
}

// runRequest has a child that is ready load its GPUs. It answers with reports: each is the whole picture until then.
type runRequest struct {
	MS int64 `json:"ms"`
	// Start is when phases begin, by the monotonic clock of the machine.
	Start int64 `json:"start,omitempty"`
	// Stretch is by how many millionths load and rest are longer than they would be.
	Stretch int64 `json:"stretch,omitempty"`
	// Steps are those of each kernel in one launch: all GPUs must compute the same.
	Steps map[string]uint32 `json:"steps,omitempty"`
}

// loadReport is what a child knows of its GPUs.
type loadReport struct {
	Turns    int64     `json:"turns"`
	Measures []measure `json:"measures,omitempty"`
	Results  []results `json:"results,omitempty"`
}

// measure is a value of one GPU, or of what goes from one to another.
type measure struct {
	Check string `json:"check"`
	From  string `json:"from"`
	To    string `json:"to,omitempty"`
	// Value is Sum/Weight where there is a weight; otherwise it is Sum: a count.
	Sum     float64  `json:"sum"`
	Weight  float64  `json:"weight,omitempty"`
	N       int64    `json:"n,omitempty"`
	Min     float64  `json:"min,omitempty"`
	Max     float64  `json:"max,omitempty"`
	Details []string `json:"details,omitempty"`
}

func (m *measure) value() float64 {
	if m.Weight > 0 {
		return m.Sum / m.Weight
	}
	return m.Sum
}

// rate adds work done in a time.
func (m *measure) rate(work, seconds float64) {
	if seconds <= 0 {
		return
	}
	r := work / seconds
	if m.N == 0 || r < m.Min {
		m.Min = r
	}
	m.Max = max(m.Max, r)
	m.Sum, m.Weight, m.N = m.Sum+work, m.Weight+seconds, m.N+1
}

// wrong adds a count of what is wrong.
func (m *measure) wrong(n int64, details ...string) {
	m.Sum, m.N = m.Sum+float64(n), m.N+1
	for _, d := range details {
		if len(m.Details) < maxDetails {
			m.Details = append(m.Details, d)
		}
	}
}

const maxDetails = 20

// results are what a kernel computed on a GPU, tile by tile: a tile's words are the same whatever computes them.
type results struct {
	Kernel   string `json:"kernel"`
	Launches int64  `json:"launches"`
	// Digests are those of each tile's first words, SMs where these came from, at most four each.
	Digests []uint64 `json:"digests"`
	SMs     [][]int  `json:"sms"`
	// Odd are later words of a tile that were others than its first.
	Odd []oddity `json:"odd,omitempty"`
}

type oddity struct {
	Tile   int    `json:"tile"`
	Digest uint64 `json:"digest"`
	SMs    []int  `json:"sms"`
	Count  int64  `json:"count"`
}

// wordsRequest asks for the words of a tile that have a digest.
type wordsRequest struct {
	Kernel string `json:"kernel"`
	Tile   int    `json:"tile"`
	Digest uint64 `json:"digest"`
}

// tileWordsOf are a tile's words, two of 32 bits in one.
type tileWordsOf struct {
	Words []uint64 `json:"words"`
}

// check refuses a report that cannot be.
func (r *loadReport) check() error {
	if len(r.Measures) > maxMeasures || len(r.Results) > 16 {
		return errors.New("a report that is too long")
	}
	for _, m := range r.Measures {
		if len(m.Details) > maxDetails {
			return fmt.Errorf("%d details", len(m.Details))
		}
		if v := m.value(); math.IsInf(v, 0) || math.IsNaN(v) || m.N < 0 {
			return fmt.Errorf("a value of %s that cannot be", m.Check)
		}
	}
	for _, x := range r.Results {
		if len(x.Digests) > maxTiles || len(x.SMs) != len(x.Digests) || len(x.Odd) > maxOddities {
			return errors.New("results that cannot be")
		}
		for _, o := range x.Odd {
			if o.Tile < 0 || o.Tile >= len(x.Digests) || o.Count < 0 {
				return errors.New("an oddity that cannot be")
			}
		}
	}
	return nil
}
