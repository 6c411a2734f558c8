package ufm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// partition is one entry of GET resources/pkeys?guids_data=true (UFM Enterprise REST API guide, "PKey GUIDs Rest API").
type partition struct {
	Name  string `json:"partition"`
	GUIDs []struct {
		GUID       string `json:"guid"`
		Index0     bool   `json:"index0"`
		Membership string `json:"membership"`
	} `json:"guids"`
	// Membership is that of every port that the default partition does not list, from version 6.19 on.
	Membership string `json:"membership"`
}

// member is a port's entry in a partition.
type member struct {
	fleet.Membership
	index0 bool
}

// partitions are the members of each key. Keys come with any number of leading zeros, GUIDs with and without 0x, and with either case.
type partitions struct {
	by map[fleet.PKey]map[fleet.GUID]member
	// others is the membership in the default partition of ports that it does not list; "" where UFM does not say.
	others string
}

func decodePartitions(b []byte) (*partitions, error) {
	var raw map[string]partition
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("partitions: %w", err)
	}
	out := &partitions{by: map[fleet.PKey]map[fleet.GUID]member{}}
	for name, p := range raw {
		var k fleet.PKey
		if err := k.UnmarshalText([]byte(strings.ToLower(name))); err != nil {
			return nil, fmt.Errorf("partitions: %w", err)
		}
		if out.by[k] != nil {
			return nil, fmt.Errorf("partitions: %s is there twice", k)
		}
		out.by[k] = map[fleet.GUID]member{}
		for i, g := range p.GUIDs {
			guid, err := decodeGUID(g.GUID)
			if err != nil {
				return nil, fmt.Errorf("partition %s: guids[%d]: %w", k, i, err)
			}
			full, err := isFull(g.Membership)
			if err != nil {
				return nil, fmt.Errorf("partition %s: guids[%d]: %w", k, i, err)
			}
			m := member{fleet.Membership{PKey: k, Full: full}, g.Index0}
			if old, twice := out.by[k][guid]; twice && old != m {
				return nil, fmt.Errorf("partition %s: %s is there twice, and differs", k, guid)
			}
			out.by[k][guid] = m
		}
		if k == fleet.DefaultPKey && p.Membership != "" {
			if _, err := isFull(p.Membership); err != nil {
				return nil, fmt.Errorf("partition %s: %w", k, err)
			}
			out.others = p.Membership
		}
	}
	return out, nil
}

const (
	full    = "full"
	limited = "limited"
)

func isFull(s string) (bool, error) {
	switch s {
	case full:
		return true, nil
	case limited:
		return false, nil
	}
	return false, fmt.Errorf("%q is no membership: full or limited", s)
}

func decodeGUID(s string) (fleet.GUID, error) {
	return fleet.ParseGUID("0x" + strings.TrimPrefix(strings.ToLower(s), "0x"))
}

// bare is a GUID as UFM wants it.
func bare(g fleet.GUID) string { return strings.TrimPrefix(string(g), "0x") }

// host is one entry of GET resources/ports?sys_type=Computer.
type host struct {
	GUID     string `json:"guid"`
	Logical  string `json:"logical_state"`
	Physical string `json:"physical_state"`
	System   string `json:"system_name"`
	Name     string `json:"dname"`
}

// decodePorts are the hosts' ports that UFM sees, and those GUIDs that it sees twice.
func decodePorts(b []byte) (seen map[fleet.GUID]host, twice []fleet.GUID, err error) {
	var raw []host
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, nil, fmt.Errorf("ports: %w", err)
	}
	seen = map[fleet.GUID]host{}
	for i, p := range raw {
		g, err := decodeGUID(p.GUID)
		if err != nil {
			return nil, nil, fmt.Errorf("ports[%d]: %w", i, err)
		}
		if old, there := seen[g]; there && old != p {
			twice = append(twice, g)
		}
		seen[g] = p
	}
	return seen, twice, nil
}

// decodeJob is the id of the job that a write began, "" where it was done at once: UFM then answers with nothing, or an empty object.
func decodeJob(b []byte) (string, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || string(b) == "{}" || string(b) == "null" {
		return "", nil
	}
	var j struct {
		ID json.Number `json:"id"`
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return "", fmt.Errorf("job: %w", err)
	}
	for _, r := range j.ID.String() {
		if r < '0' || r > '9' {
			return "", fmt.Errorf("job: %q is no number", j.ID)
		}
	}
	return j.ID.String(), nil
}

// decodeStatus is what became of a job: done, or still at work, or an error.
func decodeStatus(b []byte) (done bool, err error) {
	var j struct {
		Status  string `json:"Status"`
		Summary string `json:"Summary"`
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return false, fmt.Errorf("job: %w", err)
	}
	switch j.Status {
	case "Completed":
		return true, nil
	case "Started", "Running", "Pending":
		return false, nil
	}
	return false, fmt.Errorf("job ended as %q: %s", j.Status, j.Summary)
}
