"""Secrets by reference: filled in late, and taken out of everything that comes back."""

import base64
import json
import subprocess
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from moorage_daemon.grants.credentials import (
    Scrubber,
    filled,
    filled_for_shell,
    is_name,
    reference,
    references,
)


SECRET = "s3cr3t/+\"'$(x) `y` \\ &ü?"
SECRETS = {"key": SECRET, "other.one": "another-secret-value"}


def test_references_are_found_once_each_and_in_order() -> None:
    text = "a ${CRED:key} b ${CRED:other.one} ${CRED:key} ${CRED:} ${CRED:-x} ${cred:key} $CRED"

    assert references(text) == ("key", "other.one")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a}b", "x" * 65])
def test_name_of_a_credential_has_plain_letters(name: str) -> None:
    assert not is_name(name)


def test_reference_is_filled_in_and_an_unknown_one_stays() -> None:
    assert filled("a ${CRED:key} ${CRED:nobody}", SECRETS) == f"a {SECRET} ${{CRED:nobody}}"


def test_secret_that_looks_like_a_reference_is_not_filled_in_again() -> None:
    assert filled("${CRED:a}", {"a": "${CRED:b}", "b": "x"}) == "${CRED:b}"


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("printf %s ${CRED:key}", SECRET),
        ('printf %s "${CRED:key}"', SECRET),
        ("printf %s '${CRED:key}'", SECRET),
        ("printf %s a${CRED:key}b", f"a{SECRET}b"),
        ('printf %s "it\'s ${CRED:key}"', f"it's {SECRET}"),
        ("printf %s 'say \"${CRED:key}\"'", f'say "{SECRET}"'),
        ("printf %s it\\'s${CRED:key}", f"it's{SECRET}"),
        ('printf %s "a\\"${CRED:key}"', f'a"{SECRET}'),
        ("printf %s%s ${CRED:key} '${CRED:other.one}'", SECRET + SECRETS["other.one"]),
    ],
)
def test_shell_gets_the_secret_as_one_word_and_reads_nothing_in_it(
    command: str, printed: str
) -> None:
    text, variables = filled_for_shell(command, SECRETS)
    ran = subprocess.run(
        ["/bin/sh", "-c", text], env=variables, capture_output=True, check=True, text=True
    )

    assert ran.stdout == printed
    assert not any(secret in text for secret in SECRETS.values())


def test_command_without_references_stays_as_it_is() -> None:
    assert filled_for_shell("echo ${HOME} ${CRED:nobody}", SECRETS) == (
        "echo ${HOME} ${CRED:nobody}",
        {},
    )


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        quote(SECRET, safe=""),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"user:" + SECRET.encode()).decode(),
        base64.b64encode(b"me:" + SECRET.encode()).decode(),
        base64.b64encode(b"us:x:" + SECRET.encode() + b":y").decode(),
        base64.urlsafe_b64encode(b"user:" + SECRET.encode()).decode(),
        f"{SECRET}{SECRET}",
    ],
)
def test_secret_is_taken_out_in_the_forms_in_which_programs_print_it(shown: str) -> None:
    scrubbed = Scrubber(SECRETS).scrub(f"before {shown} after")

    assert reference("key") in scrubbed
    assert scrubbed.startswith("before ")
    assert scrubbed.endswith(" after")
    for form in (SECRET, SECRET.encode().hex(), quote(SECRET, safe="")):
        assert form not in scrubbed
    assert base64.b64encode(SECRET.encode()).decode()[4:-4] not in scrubbed


def test_line_of_a_longer_secret_is_taken_out_too() -> None:
    secret = "-----BEGIN KEY-----\nabcdefghijkl\nmnopqrstuvwx\n-----END KEY-----\n"

    scrubbed = Scrubber({"pem": secret}).scrub("x mnopqrstuvwx y\n" + secret)

    assert "mnopqrstuvwx" not in scrubbed
    assert "abcdefghijkl" not in scrubbed


@given(cut=st.integers(4, len(SECRET) - 1), before=st.text("ab \n", max_size=5))
def test_secret_that_is_cut_at_an_edge_is_taken_out(cut: int, before: str) -> None:
    scrubber = Scrubber({"key": SECRET})

    assert SECRET[:cut] not in scrubber.scrub(before + SECRET[:cut], is_cut=True)
    assert SECRET[-cut:] not in scrubber.scrub(SECRET[-cut:] + before, is_cut=True)


@given(st.text())
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert Scrubber({"key": "a-secret-that-is-nowhere"}).scrub(text) == text
