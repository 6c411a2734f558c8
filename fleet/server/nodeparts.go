package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) nodeParts() {
	s := r.s
	route(r, http.MethodGet, "/nodes/{id}/inventory", "get-inventory", "Read the newest inventory", http.StatusOK, s.getInventory)
	route(r, http.MethodGet, "/nodes/{id}/baseboard", "get-baseboard", "What the BMC showed of the GPU baseboard at the newest inspection", http.StatusOK, s.getBaseboard)
	route(r, http.MethodGet, "/nodes/{id}/differences", "get-differences", "In which ways the newest inventory is not what it should be", http.StatusOK, s.getDifferences)
	route(r, http.MethodGet, "/nodes/{id}/learned-class", "learn-class", "Make a class of what the node is, without storing it", http.StatusOK, s.learnClass)
	route(r, http.MethodGet, "/nodes/{id}/topology", "get-topology", "What the node is made of, laid out to be drawn, with what is wrong marked", http.StatusOK, s.getTopology)
	route(r, http.MethodGet, "/nodes/{id}/topology.svg", "get-topology-svg", "The same as a picture", http.StatusOK, s.getTopologySVG)
	route(r, http.MethodGet, "/nodes/{id}/cleaning", "get-cleaning", "The record of the newest cleaning: for each component what was asked, done, reported and read back", http.StatusOK, s.getCleaning)
	route(r, http.MethodGet, "/nodes/{id}/timeline", "get-timeline", "What happened around the node, of whatever source", http.StatusOK, s.getTimeline)
	route(r, http.MethodGet, "/nodes/{id}/history", "get-history", "The committed changes of the node", http.StatusOK, s.getHistory)
	route(r, http.MethodGet, "/nodes/{id}/plan", "plan-node", "What would run, without side effects", http.StatusOK, s.planNode)
	route(r, http.MethodGet, "/nodes/{id}/explain", "explain-node", "What the node waits for, and what unsticks it", http.StatusOK, s.explainNode)
	route(r, http.MethodGet, "/nodes/{id}/power", "get-power", "Read the power state from the BMC", http.StatusOK, s.getPower)
	route(r, http.MethodPost, "/nodes/{id}/power", "set-power", "Set the power by hand: on, off, cycle, shutdown", http.StatusOK, s.setPower)
}

func decodeRecord(r fleet.Record, v any) error {
	if err := json.Unmarshal(r.Data, v); err != nil {
		return fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", r.Key, err).WithHint("metalctl server check")
	}
	return nil
}

func (s *Server) inventory(ctx context.Context, digest string) (inv fleet.Inventory, err error) {
	b, err := s.Blobs.OpenBlob(ctx, digest)
	if err != nil {
		return inv, fmt.Errorf("open the inventory: %w", err)
	}
	defer b.Close()
	if err := json.NewDecoder(b).Decode(&inv); err != nil {
		return inv, fleet.Errorf(fleet.Broken, "MC-STORE-BLOB", "the inventory %s cannot be read: %w", digest, err).WithHint("metalctl server check")
	}
	return inv, nil
}

func (s *Server) getInventory(ctx context.Context, in *Item) (*plain[fleet.Inventory], error) {
	_, inv, err := s.inspected(ctx, in.ID)
	return &plain[fleet.Inventory]{inv}, err
}

type planIn struct {
	Item
	Use         string   `query:"use" required:"true" enum:"inspect,clean,burn,deploy,rebuild,release,resume" doc:"what the plan is for"`
	Device      []string `query:"device,explode" maxItems:"1000" doc:"serials that accept would agree to; none means all"`
	OutOfBand   bool     `query:"out_of_band" doc:"inspect through the BMC alone"`
	AllowReboot bool     `query:"allow_reboot" doc:"restart a running machine"`
	Image       string   `query:"image" maxLength:"200" doc:"another image than the lease's, for a rebuild"`
	Profile     string   `query:"profile" maxLength:"100" doc:"another burn-in profile than the one that is due"`
}

func (s *Server) planNode(ctx context.Context, in *planIn) (*plain[api.Plan], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	p, err := s.engine.Plans.Plan(ctx, n.ID, api.PlanQuery{Use: in.Use, Devices: in.Device, OutOfBand: in.OutOfBand, AllowReboot: in.AllowReboot, Image: in.Image, Profile: in.Profile})
	return &plain[api.Plan]{p}, err
}

// powerLimit is how long a BMC may take to read and to set power with a read-back.
const (
	powerReadLimit = time.Minute
	powerSetLimit  = 5 * time.Minute
)

func (s *Server) getPower(ctx context.Context, in *Item) (*plain[api.Power], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, powerReadLimit)
	defer cancel()
	state, err := s.Power.PowerState(ctx, n.ID)
	return &plain[api.Power]{api.Power{State: state}}, err
}

type setPowerIn struct {
	Item
	Body api.Power
}

// setPower sets the power by hand. It does not come between the steps of a plan: where one runs or waits it is refused, and what began meanwhile is told.
// A hold keeps plans away, so that hold and then power is the tool of a person who works on the machine. At the BMC it takes its turn with all
// others that write there.
func (s *Server) setPower(ctx context.Context, in *setPowerIn) (*plain[api.Power], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	action := in.Body.Action
	switch {
	case !slices.Contains([]string{"on", "off", "cycle", "shutdown"}, action):
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "action is none of on, off, cycle, shutdown")
	}
	if err := s.unfrozen(ctx, n.ID, "power "+action); err != nil {
		return nil, err
	}
	if action == "on" {
		if err := s.engine.Loads.MayPowerOn(ctx, n.ID); err != nil {
			return nil, err
		}
	}
	if action != "on" && planOf(&n) == "" && !n.Protected {
		if err := s.engine.Brakes.Harm(ctx, n.ID, fleet.HarmPower, "power "+action, callerOf(ctx)); err != nil {
			return nil, err
		}
	}
	if _, busy := s.powering.LoadOrStore(n.ID, action); busy {
		return nil, fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "somebody sets the power of %s right now", n.Name).WithHint("metalctl node power status %s", n.Name)
	}
	defer s.powering.Delete(n.ID)
	// The look and the record of the deed are one commit: a plan that began before it is seen.
	err = s.updateNode(ctx, n.ID, func(n *fleet.Node, c *fleet.Change) error {
		if n.Protected && action != "on" {
			return fleet.Errorf(fleet.Refused, "MC-NODE-PROTECTED", "the node %s is protected: it is not switched off", n.Name).WithHint("metalctl node unprotect %s", n.Name)
		}
		if op := planOf(n); op != "" {
			return fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "the operation %s works on %s and needs its power as it is", op, n.Name).WithHint("metalctl node abort %s", n.Name)
		}
		c.Events = append(c.Events, nodeEvent(n, "node.power", s.Now(), "power "+action+" asked by "+callerOf(ctx)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	// A caller that goes away does not leave a machine half way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerSetLimit)
	defer cancel()
	s.note(n.ID, 0, "state", "power "+action+" asked by "+callerOf(ctx))
	state, err := s.Power.SetPower(ctx, n.ID, action)
	if err != nil {
		return nil, err
	}
	err = s.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error {
		if state != "on" && state != "off" || n.Power == state {
			return errUnchanged
		}
		n.Power = state // so that nobody takes it for a loss of power
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n, _, err = s.node(ctx, string(n.ID)); err != nil {
		return nil, err
	}
	if op := planOf(&n); op != "" {
		return nil, fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "the power of %s is set (%s), and meanwhile the operation %s began, which it may have disturbed", n.Name, state, op).
			WithHint("metalctl operation show %s; to keep plans away next time: metalctl node hold %s --reason TEXT", op, n.Name)
	}
	return &plain[api.Power]{api.Power{State: state, Action: action}}, nil
}

// planOf is the operation that runs on the node or was asked for, or "".
func planOf(n *fleet.Node) fleet.OperationID {
	if n.Operation == "" && n.Wish != nil {
		return n.Wish.Operation
	}
	return n.Operation
}
