package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/report"
	"github.com/metalctl/metalctl/fleet/step"
)

func (r *routes) reports() {
	s := r.s
	route(r, http.MethodGet, "/nodes/{id}/reports", "list-reports", "List the node's burn-ins, newest first", http.StatusOK, s.listReports)
	route(r, http.MethodGet, "/reports/{id}", "get-report", "Read the report of a burn-in, by its operation; one that still runs has what was judged so far", http.StatusOK, s.getReport)
}

type listReportsIn struct {
	Item
	Paging
}

func (s *Server) listReports(ctx context.Context, in *listReportsIn) (*plain[api.List[api.ReportHead]], error) {
	var ops []fleet.Operation
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		ops, rev = nil, sn.Revision()
		n, _, err := findNode(sn, in.ID)
		if err != nil {
			return err
		}
		return eachRecord(sn, fleet.KindOperation, func(op fleet.Operation, _ fleet.Revision) {
			if op.Node == n.ID && op.Use == string(step.Burn) && step.ReportOf(op) != "" {
				ops = append(ops, op)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	out, err := page(ops, in.Paging, true, func(o fleet.Operation) mark { return mark{o.CreatedAt.UTC().Format(sortableTime), string(o.ID)} })
	if err != nil {
		return nil, err
	}
	heads := api.List[api.ReportHead]{Continue: out.Continue, Revision: rev, Items: []api.ReportHead{}}
	for _, op := range out.Items { // a page of them
		rep, err := s.report(ctx, op)
		if err != nil {
			return nil, err
		}
		heads.Items = append(heads.Items, api.ReportHead{ID: op.ID, Node: rep.Node, Profile: rep.Profile, Class: rep.Class, BeganAt: rep.BeganAt, EndedAt: rep.EndedAt, Finished: rep.Finished,
			Stopped: rep.Stopped, Verdict: rep.Verdict, Headline: rep.Headline, Fixture: rep.Fixture})
	}
	return &plain[api.List[api.ReportHead]]{heads}, nil
}

// report reads the newest report of a burn-in.
func (s *Server) report(ctx context.Context, op fleet.Operation) (rep fleet.BurnReport, err error) {
	digest := step.ReportOf(op)
	if digest == "" {
		return rep, fleet.Errorf(fleet.NotFound, "MC-BURN-NONE", "operation %s of %s has no report of a burn-in", op.ID, op.NodeName).WithHint("metalctl burnin report %s", op.NodeName)
	}
	b, err := s.Blobs.OpenBlob(ctx, digest)
	if err != nil {
		return rep, fmt.Errorf("open the report: %w", err)
	}
	defer b.Close()
	text, err := io.ReadAll(b)
	if err != nil {
		return rep, fmt.Errorf("read the report: %w", err)
	}
	if rep, err = report.Read(text); err != nil {
		return rep, fleet.Errorf(fleet.Broken, "MC-STORE-BLOB", "the report %s cannot be read: %w", digest, err).WithHint("metalctl server check")
	}
	return rep, nil
}

type getReportIn struct {
	Item
	Format string `query:"format" enum:"json,junit,sarif,html" default:"json" doc:"the form of the answer"`
}

// reportOut is a report in the form that was asked for.
type reportOut struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// reportTypes are the forms and what they are called in HTTP.
var reportTypes = map[string]string{"json": "application/json", "junit": "application/xml", "sarif": "application/sarif+json", "html": "text/html; charset=utf-8"}

func (s *Server) getReport(ctx context.Context, in *getReportIn) (*reportOut, error) {
	op, _, err := s.operation(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	rep, err := s.report(ctx, op)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	switch in.Format {
	case "junit":
		err = report.JUnit(&out, rep)
	case "sarif":
		err = report.SARIF(&out, rep)
	case "html":
		err = report.HTML(&out, rep)
	default:
		err = json.NewEncoder(&out).Encode(rep)
	}
	return &reportOut{reportTypes[in.Format], slices.Clip(out.Bytes())}, err
}
