"""The live page's three files fit each other, the endpoint, and its content security policy."""

from __future__ import annotations

import re
from importlib import resources
from typing import get_args

from forecaster.records import Status
from forecaster.telemetry.http import MOST_STREAMS, Sort

WEB = resources.files("forecaster.telemetry") / "web"
HTML, SCRIPT, STYLE = ((WEB / name).read_text(encoding="utf-8") for name in ("index.html", "app.js", "style.css"))


def test_every_element_the_script_asks_for_is_on_the_page():
    asked = set(re.findall(r'\$\("([\w-]+)"\)', SCRIPT)) | {"sort", "limit"}

    assert len(asked) > 15
    assert asked <= set(re.findall(r'id="([\w-]+)"', HTML))


def test_orders_and_limits_offered_are_those_the_endpoint_takes():
    offered = re.search(r'<select id="sort">(.*?)</select>', HTML, re.DOTALL)
    limits = re.search(r'<select id="limit">(.*?)</select>', HTML, re.DOTALL)

    assert offered is not None
    assert limits is not None
    assert set(re.findall(r'value="(\w+)"', offered[1])) == set(get_args(Sort))
    assert max(map(int, re.findall(r"<option>(\d+)", limits[1]))) <= MOST_STREAMS


def test_every_status_has_a_colour():
    assert set(re.findall(r'\.status\[data-status="(\w+)"\]', STYLE)) == set(Status)


def test_nothing_comes_from_another_host():
    for text in (HTML, SCRIPT, STYLE):
        assert set(re.findall(r"https?://[^\s'\"]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_page_needs_nothing_that_its_policy_forbids():
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", HTML)
    assert not re.search(r"\beval\(|new Function|setAttribute\(\"style\"", SCRIPT)


def test_names_from_outside_never_become_markup():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", SCRIPT)


def test_every_field_has_a_name_for_those_who_cannot_see_it():
    for tag in re.findall(r"<(?:input|select)\b[^>]*>", HTML):
        before = HTML[: HTML.index(tag)]
        assert before.rindex("<label") > before.rindex("</label>") if "</label>" in before else "<label" in before
