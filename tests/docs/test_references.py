"""What the documents refer to exists: pages, headings, files, make targets, metrics."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from blipmq.broker.stats import Backlog, Stats
from blipmq.nursery.metrics import Metrics
from tests.docs.markdown import ROOT, Document, documents

DOCUMENTS = list(documents())
README = Document.read("README.md")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


@every_document
def test_links_lead_to_a_file_and_a_heading(document: Document) -> None:
    for link in document.links:
        path, _, anchor = link.partition("#")
        if path.startswith("https://"):
            continue
        target = (ROOT / document.name).parent / path if path else ROOT / document.name
        assert target.is_file(), link
        if anchor:
            assert anchor in Document.read(str(target.resolve().relative_to(ROOT))).anchors, link


def test_the_readme_leads_to_every_document() -> None:
    pages = {document.name for document in DOCUMENTS} - {README.name}
    assert pages <= README.links


@every_document
def test_files_of_the_project_that_are_named_exist(document: Document) -> None:
    for path in re.findall(r"`((?:blipmq|tests|tools|docs)/[\w./]*)`", document.prose):
        assert (ROOT / path).exists(), path


@every_document
def test_make_targets_that_are_named_exist(document: Document) -> None:
    named = re.findall(r"(?:`| {4}|^)make ([a-z][a-z-]*)(?:`|$)", document.text, re.MULTILINE)
    assert dry_run("help", *named) == ""


def test_a_target_that_does_not_exist_is_noticed() -> None:
    assert "no-such-target" in dry_run("help", "no-such-target")


def dry_run(*targets: str) -> str:
    """What make complains of, were it to make these targets."""
    make = shutil.which("make")
    assert make is not None
    command = [make, "--dry-run", *targets]
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ran.returncode == 0) == (ran.stderr == "")
    return ran.stderr


def test_the_readme_names_the_targets_that_a_user_needs() -> None:
    for target in ("run", "demo", "test", "check", "typecheck-trio-typing", "chaos-crash"):
        assert re.search(rf"(`| {{4}})make {target}(`|$)", README.text, re.MULTILINE), target


@pytest.fixture(scope="module")
def metric_names() -> set[str]:
    metrics = Metrics(
        Stats(),
        lambda limit: [Backlog("1", "demo", 1, 1, 1.0)],
        lambda: None,
        max_labelled_subscriptions=1,
    )
    return set(re.findall(r"^(blipmq_\w+)", metrics.render().decode(), re.MULTILINE))


@every_document
def test_metrics_that_are_named_exist(document: Document, metric_names: set[str]) -> None:
    known = metric_names | {name.removesuffix("_bucket") for name in metric_names}
    known |= {"blipmq_broker", "blipmq_client"}  # fixtures of pytest
    assert set(re.findall(r"`(blipmq_\w+)", document.prose)) <= known
