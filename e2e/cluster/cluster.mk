# Builds what the local cluster consists of into $(BIN), each program from its own module or, where versions allow it, from
# one with Kubernetes. A program is written beside its place and moved there whole, so that a build that was cut off leaves
# nothing that looks finished.
#
# One Go build at a time, and the modules name the same versions of what several of them need: so that is compiled once.

BIN := .state/bin
KUBE_VERSION := v1.36.3
KUBE_FLAGS := -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION) \
  -X k8s.io/component-base/version.gitMajor=$(word 1,$(subst ., ,$(KUBE_VERSION:v%=%))) \
  -X k8s.io/component-base/version.gitMinor=$(word 2,$(subst ., ,$(KUBE_VERSION:v%=%)))

# $(call go-build,module folder,package,output,extra flags); the compiler collects its garbage seldom: a fifth less work, and
# less than half a gigabyte a process.
go-build = @mkdir -p $(BIN) && cd e2e/cluster/$(1) && \
  flock $(CURDIR)/$(BIN)/.one-at-a-time bash -c 'echo "building $$0"; "$$@" && printf "%6d s  %s is built\n" $$SECONDS $$0' $(notdir $(3)) \
  env GOGC=400 go build -mod=readonly -trimpath -ldflags "-s -w $(5)" $(4) -o $(CURDIR)/$(3).half $(2) && mv -f $(CURDIR)/$(3).half $(CURDIR)/$(3)
go-module = e2e/cluster/$(1)/go.mod e2e/cluster/$(1)/go.sum

$(BIN)/kube: $(call go-module,.) $(wildcard e2e/cluster/kube/*.go)
	$(call go-build,.,./kube,$@,,$(KUBE_FLAGS))

CONTAINERD := github.com/containerd/containerd/v2/cmd
CONTAINERD_TAGS := -tags no_btrfs,no_devmapper,no_zfs
$(BIN)/containerd $(BIN)/containerd-shim-runc-v2 $(BIN)/ctr: $(BIN)/%: $(call go-module,containerd)
	$(call go-build,containerd,$(CONTAINERD)/$*,$@,$(CONTAINERD_TAGS))

# With seccomp: without it every container would run unconfined.
$(BIN)/runc: $(call go-module,runc)
	$(call go-build,runc,github.com/opencontainers/runc,$@,-tags seccomp)

$(BIN)/helm: $(call go-module,.)
	$(call go-build,.,helm.sh/helm/v3/cmd/helm,$@)

# For benches with more nodes than a machine can run: `make .state/bin/kwok` builds it, and nothing else here does.
$(BIN)/kwok: $(call go-module,kwok)
	$(call go-build,kwok,sigs.k8s.io/kwok/cmd/kwok,$@)

# anvil comes from npm with the contracts' tools. Where it lies is said from here, so that a checkout can be moved.
$(BIN)/anvil: contracts/node_modules/.stamp e2e/cluster/cluster.mk
	@mkdir -p $(BIN)
	@printf '#!/bin/sh\nexec "$$(dirname "$$(readlink -f "$$0")")/../../contracts/node_modules/.native/anvil" "$$@"\n' > $@.half && \
	  chmod +x $@.half && mv -f $@.half $@

CLUSTER_BIN := $(addprefix $(BIN)/,kube containerd containerd-shim-runc-v2 ctr runc helm anvil)

# What the programs are made of, downloaded where it is not there: listing asks for nothing else.
.PHONY: cluster-sources
cluster-sources: $(if $(filter-out $(wildcard $(CLUSTER_BIN)),$(CLUSTER_BIN)),cluster-downloads)
.PHONY: cluster-downloads
cluster-downloads:
	@echo "downloading what the cluster's programs are made of"
	@for module in . containerd runc; do (cd e2e/cluster/$$module && go list -deps tool ./... > /dev/null); done; \
	printf '%6d s  it is downloaded\n' $$SECONDS

.PHONY: cluster-bin
cluster-bin: $(CLUSTER_BIN) ## build the local cluster's programs
