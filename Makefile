# asyncsentry: everything a newcomer or CI runs. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml setup.py $(wildcard asyncsentry/platforms/*.py asyncsentry/platforms/systrap/*.[ch])

.PHONY: help build run test test-quick lint bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: .venv/built ## install what is missing and build; leaves .venv/bin/asyncsentry

.venv/built: $(SOURCES) scripts/bootstrap
	scripts/bootstrap "$(PYTHON)"
	touch $@

run: build ## show a sandbox at work; on a terminal, leave you at a shell in it
	scripts/run

test: build ## run every test
	scripts/bootstrap-tests
	$(BIN)/python -m pytest -q

test-quick: build ## run the tests that need no root file system
	$(BIN)/python -m pytest -q -m "not slow and not programs"

lint: build ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: build ## measure against native and peers, write bench/results.md
	$(BIN)/python -m bench

clean: ## remove what was built
	rm -rf .venv build .cache asyncsentry/platforms/_native*
