package fleet

// CleanGPUs is how a class wants its GPUs after a tenant. Compute mode, application and locked clocks and power limit always go back to the driver's defaults, and no
// process and no memory may be left.
type CleanGPUs struct {
	// Required makes it a fault where nobody could look, for want of a driver.
	Required bool `json:"required,omitempty"`
	// MIG is off where empty, ECC on, and Persistence as it is: "keep" leaves a setting alone.
	MIG         string `json:"mig,omitempty" enum:"on,off,keep"`
	ECC         string `json:"ecc,omitempty" enum:"on,off,keep"`
	Persistence string `json:"persistence,omitempty" enum:"on,off,keep"`
}

// CleanKeep leaves a setting as it is.
const CleanKeep = "keep"

// Filled has the defaults in place of what is empty.
func (c CleanGPUs) Filled() CleanGPUs {
	for _, x := range []struct {
		to   *string
		word string
	}{{&c.MIG, "off"}, {&c.ECC, "on"}, {&c.Persistence, CleanKeep}} {
		if *x.to == "" {
			*x.to = x.word
		}
	}
	return c
}

// GPUCleaning is what became of a machine's GPUs.
type GPUCleaning struct {
	Driver string `json:"driver,omitempty"`
	// Unseen says why nobody looked, "" where somebody did.
	Unseen string `json:"unseen,omitempty"`
	// Failed: there is a driver, or something that should be one, and it could not be asked.
	Failed bool         `json:"failed,omitempty"`
	GPUs   []GPUCleaned `json:"gpus,omitempty"`
}

// GPUCleaned is what became of one GPU.
type GPUCleaned struct {
	PCIAddress string       `json:"pci_address"`
	Index      int          `json:"index"`
	ModuleID   int          `json:"module_id,omitempty"`
	Serial     string       `json:"serial,omitempty"`
	Settings   []GPUSetting `json:"settings"`
	// MemoryUsedBytes is what was in use at the end; nil where the driver did not tell.
	MemoryUsedBytes *int64 `json:"memory_used_bytes,omitempty"`
	// Whole: every question was asked and answered. Faults are in words; there are some where it is not whole.
	Whole  bool     `json:"whole,omitempty"`
	Faults []string `json:"faults,omitempty"`
}

// GPUSetting is one setting of a GPU: as it was, as it was to be, as it was read afterwards.
type GPUSetting struct {
	Name   string `json:"name"`
	Before string `json:"before,omitempty"`
	Asked  string `json:"asked,omitempty"`
	// Said is what the driver answered to the change, "" where nothing had to be changed; or why there is no such setting.
	Said  string `json:"said,omitempty"`
	After string `json:"after,omitempty"`
}
