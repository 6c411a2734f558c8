package redfish

import "context"

// actionInfo is what a BMC says about the parameters of an action; empty where it says nothing.
type actionInfo struct {
	known      bool
	parameters map[string]parameter
}

type parameter struct {
	required bool
	allowed  []string
}

func (i actionInfo) values(name string) []string { return i.parameters[name].allowed }

// takes reports whether the parameter may be sent: true where nothing is known.
func (i actionInfo) takes(name string) bool {
	_, ok := i.parameters[name]
	return ok || !i.known
}

// actionInfo reads the ActionInfo resource and the annotations of an action object. What cannot be read is unknown: the action
// itself will tell.
func (b *BMC) actionInfo(ctx context.Context, action map[string]any) actionInfo {
	info := parseActionInfo(nil, action)
	if l := linkOf(action["@Redfish.ActionInfo"]); l != "" {
		r, err := b.get(ctx, l)
		if err != nil {
			b.log().DebugContext(ctx, "an ActionInfo cannot be read", "uri", l, "err", err)
			return info
		}
		return parseActionInfo(r, action)
	}
	return info
}

func parseActionInfo(r *resource, action map[string]any) actionInfo {
	info := actionInfo{parameters: map[string]parameter{}}
	const annotation = "@Redfish.AllowableValues"
	for key, v := range action {
		if n := len(key) - len(annotation); n > 0 && key[n:] == annotation {
			info.parameters[key[:n]] = parameter{allowed: texts(v)}
		}
	}
	if r == nil {
		return info
	}
	list, ok := r.at("Parameters").([]any)
	if !ok {
		return info
	}
	for i, one := range list {
		if i == maxMembers {
			break
		}
		name := text(dig(one, "Name"))
		if name == "" {
			continue
		}
		required, _ := dig(one, "Required").(bool)
		info.parameters[name] = parameter{required: required, allowed: texts(dig(one, "AllowableValues"))}
		info.known = true
	}
	return info
}
