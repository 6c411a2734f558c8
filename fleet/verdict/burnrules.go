package verdict

import "github.com/metalctl/metalctl/fleet"

// counterRules are the counters that are compared with what they were. An id's rest behind nvlink- and hca- is the counter's name in the inventory.
// NVSentinel's table of InfiniBand counters is the most careful that is public; rates that it gives per second or minute are per hour here.
var counterRules = []counterRule{
	{id: "gpu-ecc-uncorrected", unit: "errors", what: "errors of its memory that could not be corrected", family: ofMemory, fatal: true, worst: fleet.Fail, code: "MC-BURN-ECC", do: "reset", source: "DCGM, gpud"},
	{id: "gpu-ecc-corrected", unit: "errors", what: "corrected errors of its memory", family: ofMemory, worst: fleet.Fail, most: 100, limit: "gpu-corrected-rate", code: "MC-BURN-ECC", do: "reset", source: "metalctl: far above what a whole fleet shows"},
	{id: "gpu-remapped-rows", unit: "rows", what: "rows of HBM replaced after errors that could not be corrected", family: ofMemory, fatal: true, worst: fleet.Fail, code: "MC-BURN-ECC", do: "reset", source: "gpud"},
	{id: "gpu-remapped-rows-corrected", unit: "rows", what: "rows of HBM replaced after corrected errors", family: ofMemory, fatal: true, worst: fleet.Warn, code: "MC-BURN-ECC", do: "retest", source: "gpud"},
	{id: "gpu-pcie-replays", unit: "replays", what: "packets sent again over PCIe", family: ofPCIe, worst: fleet.Fail, most: 1843, limit: "gpu-pcie-replay-rate", code: "MC-BURN-PCIE", do: "reseat", source: "DCGM: 1.92 a minute for each of 16 lanes"},
	{id: "pcie-aer-fatal", unit: "errors", what: "fatal PCIe errors", family: ofPCIe, fatal: true, worst: fleet.Fail, code: "MC-BURN-PCIE", do: "reseat", source: "PCIe Base Specification, 6.2"},
	{id: "pcie-aer-nonfatal", unit: "errors", what: "PCIe errors that were not corrected", family: ofPCIe, fatal: true, worst: fleet.Warn, code: "MC-BURN-PCIE", do: "retest", source: "PCIe Base Specification, 6.2"},
	{id: "pcie-aer-correctable", unit: "errors", what: "corrected PCIe errors", family: ofPCIe, worst: fleet.Fail, most: 1920, limit: "pcie-corrected-rate", code: "MC-BURN-PCIE", do: "reseat", source: "DCGM: 480 in 15 minutes"},

	{id: "nvlink-recovery", unit: "errors", what: "recoveries of the link", family: ofLink, fatal: true, worst: fleet.Fail, code: "MC-BURN-NVLINK", do: "reset", source: "DCGM"},
	{id: "nvlink-replay", unit: "errors", what: "replays", family: ofLink, worst: fleet.Fail, most: 1, limit: "nvlink-replay-rate", code: "MC-BURN-NVLINK", do: "reset", source: "DCGM fails at the first, Imbue below 5 not"},
	{id: "nvlink-crc", unit: "errors", what: "checksum errors", family: ofLink, worst: fleet.Fail, most: 360000, code: "MC-BURN-NVLINK", do: "reset", source: "DCGM: 100 a second"},
	{id: "nvlink-malformed", fifth: true, unit: "packets", what: "malformed packets", family: ofLink, fatal: true, worst: fleet.Fail, code: "MC-BURN-NVLINK", do: "reset", source: "DCGM"},
	{id: "nvlink-overrun", fifth: true, unit: "packets", what: "buffer overruns", family: ofLink, fatal: true, worst: fleet.Fail, code: "MC-BURN-NVLINK", do: "reset", source: "DCGM"},
	{id: "nvlink-local-integrity", fifth: true, unit: "errors", what: "errors of the link's integrity", family: ofLink, fatal: true, worst: fleet.Fail, code: "MC-BURN-NVLINK", do: "reset", source: "DCGM"},
	{id: "nvlink-recovery-failed", fifth: true, unit: "recoveries", what: "recoveries that failed", family: ofLink, fatal: true, worst: fleet.Fail, code: "MC-BURN-NVLINK", do: "reset", source: "DCGM"},
	{id: "nvlink-recovery-ok", fifth: true, unit: "recoveries", what: "recoveries of the link", family: ofLink, worst: fleet.Fail, most: 1, limit: "nvlink-replay-rate", code: "MC-BURN-NVLINK", do: "reset", source: "as replays of older links"},
	{id: "nvlink-rcv", fifth: true, unit: "errors", what: "errors of received packets", family: ofLink, worst: fleet.Fail, most: 1, limit: "nvlink-replay-rate", code: "MC-BURN-NVLINK", do: "reset", source: "as replays of older links"},

	{id: "hca-link-downed", unit: "times", what: "losses of the link", family: ofPort, fatal: true, worst: fleet.Fail, code: "MC-BURN-HCA", do: "cable", source: "NVSentinel"},
	{id: "hca-excessive-buffer-overrun-errors", unit: "errors", what: "buffer overruns", family: ofPort, fatal: true, worst: fleet.Fail, code: "MC-BURN-HCA", do: "cable", source: "NVSentinel"},
	{id: "hca-local-link-integrity-errors", unit: "errors", what: "errors of the link's integrity", family: ofPort, fatal: true, worst: fleet.Fail, code: "MC-BURN-HCA", do: "cable", source: "NVSentinel"},
	{id: "hca-rnr-nak-retry-err", unit: "errors", what: "requests given up as the receiver was never ready", family: ofPort, fatal: true, worst: fleet.Fail, code: "MC-BURN-HCA", do: "retest", source: "NVSentinel"},
	{id: "hca-symbol-error", unit: "errors", what: "symbol errors", family: ofPort, worst: fleet.Fail, most: 120, limit: "hca-symbol-error-rate", code: "MC-BURN-HCA", do: "cable", source: "NVSentinel: 120 an hour"},
	{id: "hca-link-error-recovery", unit: "times", what: "recoveries of the link", family: ofPort, worst: fleet.Fail, most: 300, code: "MC-BURN-HCA", do: "cable", source: "NVSentinel: 5 a minute"},
	{id: "hca-port-rcv-errors", unit: "packets", what: "packets received with errors", family: ofPort, worst: fleet.Fail, most: 36000, code: "MC-BURN-HCA", do: "cable", source: "NVSentinel: 10 a second"},
	{id: "hca-local-ack-timeout-err", unit: "times", what: "acknowledgements that did not come", family: ofPort, worst: fleet.Warn, most: 3600, code: "MC-BURN-HCA", do: "retest", source: "NVSentinel: 1 a second"},
	{id: "hca-port-xmit-discards", unit: "packets", what: "packets not sent", family: ofPort, worst: fleet.Warn, most: 360000, code: "MC-BURN-HCA", do: "retest", source: "NVSentinel: 100 a second"},
	{id: "hca-roce-slow-restart", unit: "times", what: "slow restarts of RoCE", family: ofPort, worst: fleet.Warn, most: 36000, code: "MC-BURN-HCA", do: "retest", source: "NVSentinel: 10 a second"},

	{id: "dimm-uncorrected", unit: "errors", what: "errors that could not be corrected", family: ofDIMM, fatal: true, worst: fleet.Fail, code: "MC-BURN-DIMM", do: "replace", source: "EDAC"},
	{id: "dimm-corrected", unit: "errors", what: "corrected errors", family: ofDIMM, worst: fleet.Fail, most: 10.0 / 24, limit: "dimm-corrected-rate", code: "MC-BURN-DIMM", do: "replace", source: "mcelog: 10 in 24 hours"},

	{id: "disk-media-errors", unit: "errors", what: "reads and writes of the medium that failed", family: ofDisk, fatal: true, worst: fleet.Fail, code: "MC-BURN-DISK", do: "replace", source: "NVM Express Base Specification 2.0c, figure 207"},
	{id: "disk-spare-spent", unit: "percent", what: "percent of its spare blocks spent", family: ofDisk, fatal: true, worst: fleet.Warn, code: "MC-BURN-DISK", do: "retest", source: "NVM Express Base Specification 2.0c, figure 207"},
	{id: "disk-unsafe-shutdowns", unit: "times", what: "losses of power", family: ofDisk, fatal: true, worst: fleet.Warn, code: "MC-BURN-POWER", do: "retest", source: "NVM Express Base Specification 2.0c, figure 207"},
}
