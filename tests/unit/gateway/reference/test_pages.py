"""The pages of problems and runbooks, and the files of the reference."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from contracts import problems
from gateway.reference import pages
from gateway.reference.pages import Runbooks
from support import monitored, sample_endpoints

ASSETS = Path(pages.__file__).parent / "assets"
NAMES = sorted({alert.name for alert in monitored.alerts()})


def test_markup_in_a_text_is_shown_and_not_obeyed() -> None:
    page = pages.page("<b>", "# A\n\n<script>alert(1)</script>").decode()
    assert "<title>&lt;b&gt; " in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_a_link_to_another_runbook_leads_to_its_page() -> None:
    assert b'href="/docs/runbooks/TickwireNotReady"' in pages.page("A", "[it](TickwireNotReady.md)")


def test_every_alert_has_a_page_and_the_index_leads_to_each() -> None:
    runbooks = Runbooks()
    assert sorted(runbooks.pages) == NAMES
    assert sorted(set(re.findall(r'href="/docs/runbooks/(\w+)"', runbooks.index.decode()))) == NAMES
    for name, page in runbooks.pages.items():
        assert f"<h1>{name}".encode() in page
        assert page.count(b"<h2>") == 4


def test_the_page_of_a_problem_says_what_to_do_and_names_its_operations() -> None:
    declared = sample_endpoints.declared()
    page = pages.problem_page(problems.of("conflict"), declared[:1]).decode()
    assert "<h1>409 Conflict</h1>" in page
    assert "Read the object again" in page
    assert '<a href="/docs#createThing">POST /things</a>' in page
    path = pages.problem_page(problems.of("not-found"), declared[3:4]).decode()
    assert ">GET /things/{thing_id}</a>" in path


def test_the_page_of_a_problem_that_no_operation_has_says_so() -> None:
    assert b"None in particular" in pages.problem_page(problems.of("method-not-allowed"), [])


def test_the_list_of_problems_leads_to_every_one() -> None:
    page = pages.problem_index(problems.CATALOGUE.values()).decode()
    assert set(re.findall(r'href="/problems/([a-z-]+)"', page)) == set(problems.CATALOGUE)


@pytest.mark.parametrize("file", sorted(ASSETS.iterdir()), ids=lambda file: file.name)
def test_a_file_of_the_reference_loads_nothing_from_elsewhere_and_is_not_inlined(file: Path) -> None:
    text = file.read_text()
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "<style" not in text
    assert " style=" not in text
    assert "innerHTML" not in text
    assert all(
        tag == '<script type="module" src="/docs/reference.js">' for tag in re.findall("<script.*?>", text)
    )
    assert not re.search(r"\son[a-z]+=", text)


def test_the_files_of_the_reference_stay_small() -> None:
    assert sum(file.stat().st_size for file in ASSETS.iterdir()) <= 60 * 1024


def test_the_wheel_carries_every_runbook(tmp_path: Path) -> None:
    project = monitored.REPOSITORY / "services" / "gateway"
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"gateway/reference/runbooks/{name}.md" for name in NAMES} <= set(names)
    assert {f"gateway/reference/assets/{file.name}" for file in ASSETS.iterdir()} <= set(names)
