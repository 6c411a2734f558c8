//go:build cgo

package gpu

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/metalctl/metalctl/fleet"
)

// links reads how each NVLink is; what has no function of its own follows in fields.
func (d *device) links() {
	for link := range nvml.NVLINK_MAX_LINKS {
		var state nvml.EnableState
		ret := d.try("nvmlDeviceGetNvLinkState", func() (ret nvml.Return) {
			state, ret = d.dev.GetNvLinkState(link)
			return ret
		})
		if ret == nvml.ERROR_INVALID_ARGUMENT || link == 0 && ret == nvml.ERROR_NOT_SUPPORTED {
			return // past the last one, or a GPU without NVLink
		}
		l := fleet.NVLink{Link: link, State: fleet.LinkUnknown}
		switch {
		case ret == nvml.ERROR_NOT_SUPPORTED:
			l.State = fleet.LinkDisabled // this one only: fused off
		case ret != nvml.SUCCESS:
			d.note(fmt.Sprintf("nvlink/%d", link), "nvmlDeviceGetNvLinkState", ret)
			if ret == nvml.ERROR_FUNCTION_NOT_FOUND || ret == nvml.ERROR_GPU_IS_LOST {
				return
			}
		case state == nvml.FEATURE_ENABLED:
			l.State = fleet.LinkUp
		default:
			l.State = fleet.LinkDown
		}
		if l.State == fleet.LinkUp || l.State == fleet.LinkDown {
			l.Remote = d.remote(link, l.State == fleet.LinkUp)
		}
		d.g.NVLinks = append(d.g.NVLinks, l)
	}
}

// remote reads where a link leads. All ones, as Blackwell answers, is not told; of a link that is down the driver need not know.
func (d *device) remote(link int, up bool) *fleet.NVLinkEnd {
	end := &fleet.NVLinkEnd{Kind: "unknown"}
	function := d.newest("nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvmlDeviceGetNvLinkRemotePciInfo")
	ret := d.try(function, func() nvml.Return {
		p, ret := d.dev.GetNvLinkRemotePciInfo(link)
		if ret == nvml.SUCCESS && p.Bus <= 0xff && p.Domain != 0xffffffff && p.Bus|p.Device|p.Domain != 0 {
			end.PCIAddress = fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device)
		}
		return ret
	})
	if ret != nvml.SUCCESS && up {
		d.note("nvlinks remote", function, ret)
	}
	if ret != nvml.SUCCESS || end.PCIAddress == "" {
		return nil
	}
	d.ask("nvlinks remote kind", "nvmlDeviceGetNvLinkRemoteDeviceType", func() nvml.Return {
		kind, ret := d.dev.GetNvLinkRemoteDeviceType(link)
		switch kind {
		case nvml.NVLINK_DEVICE_TYPE_GPU:
			end.Kind = "gpu"
		case nvml.NVLINK_DEVICE_TYPE_SWITCH:
			end.Kind = "switch"
		}
		return ret
	})
	return end
}

// fabric reads the registration with the fabric manager.
func (d *device) fabric() {
	if len(d.g.NVLinks) == 0 {
		return
	}
	if d.symbol("nvmlDeviceGetGpuFabricInfoV") {
		d.ask("fabric", "nvmlDeviceGetGpuFabricInfoV", func() nvml.Return {
			f, ret := d.dev.GetGpuFabricInfoV().V2()
			if ret == nvml.SUCCESS {
				d.enterFabric(f.State, f.Status, f.CliqueId, f.ClusterUuid, f.HealthMask)
			}
			return ret
		})
		return
	}
	d.ask("fabric", "nvmlDeviceGetGpuFabricInfo", func() nvml.Return {
		// for drivers before 545
		f, ret := d.dev.GetGpuFabricInfo()
		if ret == nvml.SUCCESS {
			d.enterFabric(f.State, f.Status, f.CliqueId, f.ClusterUuid, 0)
		}
		return ret
	})
}

func (d *device) enterFabric(state uint8, status, clique uint32, cluster [16]uint8, health uint32) {
	f := &fleet.GPUFabric{State: oneOf(int(state), "unsupported", "not-started", "in-progress", "completed"), Clique: int(clique)}
	if state == nvml.GPU_FABRIC_STATE_COMPLETED {
		f.Status = "success"
		if status != 0 {
			f.Status = words(nvml.Return(status))
		}
	}
	if cluster != [16]uint8{} {
		f.Cluster = fmt.Sprintf("%x-%x-%x-%x-%x", cluster[:4], cluster[4:6], cluster[6:8], cluster[8:10], cluster[10:])
	}
	f.Unhealthy = fabricHealth(health)
	d.g.Fabric = f
}
