# metalctl: the commands that always work, as root, on a fresh Debian 12 with Go. They install what they need and say so.
GO      ?= go
CACHE   := $(or $(METALCTL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/metalctl)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
# Lazy: NVIDIA's functions are bound when they are called, as most machines have none.
LDFLAGS := -s -w -X main.version=$(VERSION) -extldflags=-Wl,-z,lazy
TAGS    := netgo,osusergo
export METALCTL_CACHE := $(CACHE)
# go-nvml wraps what NVIDIA calls deprecated, too; the compiler would say so 33 times.
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations

.PHONY: all build setup check test test-long bench soak demo clean go-version generate

all: build

go-version:
	@v=$$($(GO) env GOVERSION 2>/dev/null); case "$$v" in go1.2[6-9]*|go1.[3-9][0-9]*) ;; \
	*) echo "metalctl needs Go 1.26 or newer in PATH; found: $${v:-none}. See https://go.dev/doc/install"; exit 1;; esac

# setup installs Debian packages that are missing; it asks nothing.
setup: go-version
	@scripts/setup.sh

# The ramdisk's program is built first and embedded, so that one file is the whole product and server and agent always match.
build: go-version
	@mkdir -p bin
	@$(GO) run ./fixtures/nvml/build fixtures/nvml/built
	@$(GO) run ./fixtures/cuda/build fixtures/cuda/built
	CGO_ENABLED=1 $(GO) build -trimpath -tags $(TAGS),ramdisk -ldflags '$(LDFLAGS)' -o bin/metalctl-agent ./cmd/metalctl
	@$(GO) run ./scripts/pack-agent bin/metalctl-agent cmd/metalctl/payload/agent.zst
	CGO_ENABLED=1 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/metalctl ./cmd/metalctl

# generate writes the generated references and the pages of docs/incidents anew; tests compare them.
generate:
	METALCTL_UPDATE=1 $(GO) test -count=1 ./fleet ./fleet/step ./fleet/verdict ./fleet/topology ./fleet/reconcile ./cmd/metalctl -run 'Golden|Docs|Markdown'
	$(GO) test -count=1 ./fleet/server -run OpenAPI -update
	METALCTL_UPDATE=1 $(GO) test -count=1 ./cmd/metalctl -run TestIncidents

check: go-version
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	$(GO) mod verify
	$(GO) vet ./...
	$(GO) vet -tags ramdisk ./cmd/metalctl
	cd scripts/tools && $(GO) build -o ../../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/metalctl
	CGO_ENABLED=0 $(GO) build -tags ramdisk -o /dev/null ./cmd/metalctl
	$(GO) test -count=1 -run 'TestHouse' ./cmd/metalctl

test: setup build check
	@scripts/kernel.sh generic >/dev/null && scripts/kernel.sh cloud >/dev/null && scripts/image-debian.sh >/dev/null
	scripts/test.sh

test-long: setup build
	@scripts/kernel.sh generic >/dev/null && scripts/kernel.sh cloud >/dev/null && scripts/image-debian.sh >/dev/null
	METALCTL_LONG=1 $(GO) test -count=1 -p 1 -timeout 120m ./...

bench: setup build
	@scripts/kernel.sh generic >/dev/null && scripts/kernel.sh cloud >/dev/null && scripts/image-debian.sh >/dev/null
	scripts/bench.sh

# soak runs MINUTES (default 30) of 2,000 simulated nodes that fail, before a server that is killed at random; then new seeds of the stories for SEEDS minutes.
soak: setup build
	MINUTES=$(MINUTES) SEEDS=$(SEEDS) NODES=$(NODES) scripts/soak.sh

demo: setup build
	@scripts/demo.sh

clean:
	rm -rf bin cmd/metalctl/payload/agent.zst
