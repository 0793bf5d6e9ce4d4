# What one runs before a commit is make check; HACKING.md tells of the rest.

GO       ?= go
PREFIX   ?= /usr/local
FUZZTIME ?= 30s
ROUNDS   ?= 1000
TEST     ?= ./...
TOOL     := $(GO) tool -modfile=tools.mod

# The race detector needs a C compiler.
RACE     ?= $(if $(shell command -v $(shell $(GO) env CC)),-race)

# The version is the commit's, unless git will not look at this directory: one
# without history, or of another owner.
VCS      := $(shell git status >/dev/null 2>&1 && echo auto || echo false)
export GOFLAGS := $(GOFLAGS) -buildvcs=$(VCS)

# What make consul builds is found by scripts.
export PATH := $(CURDIR)/.bin:$(PATH)

.PHONY: build test lint fmt cover fuzz chaos bench update consul check install units clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -tags urfave_cli_no_docs -o bin/pm ./cmd/pm

# Scripts mostly wait, so more of them run at once than there are processors.
test:
	$(GO) test $(RACE) -timeout 20m -parallel 8 $(TEST)

lint:
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	@unformatted=$$($(TOOL) gofumpt -l .) && test -z "$$unformatted" || \
		{ echo "not formatted (make fmt does it):"; echo "$$unformatted"; exit 1; }
	$(GO) fix -diff ./...
	$(GO) mod tidy -diff

fmt:
	$(GO) fix ./...
	$(TOOL) gofumpt -w .

cover:
	@mkdir -p bin
	$(GO) test -timeout 20m -parallel 8 -coverpkg=./... -coverprofile=bin/cover.out ./...
	$(GO) tool cover -func=bin/cover.out | tail -n 1

# Every fuzz test of every package, one after the other.
fuzz:
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# Violence to a daemon, and a look after each round at what it makes of it.
chaos:
	$(GO) test -count 1 -timeout 3h ./cmd/pm -run '^TestChaos$$' -v -chaos-rounds $(ROUNDS) $(if $(CLOCK),-chaos-clock)

bench: build
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) run ./bench

# Rewrites what is generated: the want-… files of scripts, and the tables in docs.
update:
	@set -e; for package in $$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -n 1 dirname | sort -u); do \
		$(GO) test -parallel 8 $$package -update; \
	done

# A real Consul for scripts, which Debian does not have: minutes at first, and nothing
# when it is there.
consul:
	CGO_ENABLED=0 $(GO) build -C tools/consul -trimpath -ldflags '-s -w' -o $(CURDIR)/.bin/consul github.com/hashicorp/consul

check: lint test build

install: build
	install -D -m 0755 bin/pm $(DESTDIR)$(PREFIX)/bin/pm

# What systemd needs, with pm where install puts it.
UNITS    := $(DESTDIR)$(PREFIX)/lib/systemd

units:
	@set -e; for kind in system user; do \
		from=packaging; test $$kind = system || from=packaging/$$kind; \
		for unit in pm.service pm.socket; do \
			install -d $(UNITS)/$$kind; \
			sed 's,/usr/local/bin,$(PREFIX)/bin,g' $$from/$$unit >$(UNITS)/$$kind/$$unit; \
		done; \
	done

clean:
	rm -rf bin
