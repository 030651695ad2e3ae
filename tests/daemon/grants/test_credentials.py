"""Secrets by reference: filled in late, and told as references."""

import subprocess

import pytest

from moorage_daemon.grants.credentials import (
    UnclearPlace,
    filled,
    filled_for_shell,
    is_name,
    reference,
    references,
    scrubber_of,
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
        ('# don\'t ${CRED:key}\nprintf %s "${CRED:key}"', SECRET),
        ("printf %s a#'b ${CRED:key}'", f"a#b {SECRET}"),
        ('printf %s "$(printf %s "${CRED:key}")"', SECRET),
        ("printf %s \"$(printf %s 'a'; (printf %s ${CRED:key}); echo)\"", f"a{SECRET}"),
        ('x=1; printf %s "${x}$(( (x) )) ${CRED:key}" 2>&1', f"11 {SECRET}"),
        ('X=${CRED:key}; printf %s "$X"', SECRET),
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


@pytest.mark.parametrize(
    "command",
    [
        "cat <<E\n${CRED:key}\nE",
        "cat <<'E'\nit's\nE\nprintf %s ${CRED:key}",
        "printf %s `printf %s ${CRED:key}`",
        "printf %s $'a\\'' ${CRED:key}",
        "printf %s ${x:-${CRED:key}}",
        'printf %s "$(case a in a) printf %s "${CRED:key}";; esac)"',
        "sh -c 'printf %s ${CRED:key}'",
        '/bin/bash -e -uc "printf %s ${CRED:key}"',
        "eval printf %s ${CRED:key}",
    ],
)
def test_secret_is_not_filled_in_where_its_place_is_not_clear(command: str) -> None:
    with pytest.raises(UnclearPlace):
        filled_for_shell(command, SECRETS)


def test_command_without_references_stays_as_it_is() -> None:
    assert filled_for_shell("echo ${HOME} ${CRED:nobody}", SECRETS) == (
        "echo ${HOME} ${CRED:nobody}",
        {},
    )


def test_secret_is_told_as_its_reference() -> None:
    assert scrubber_of(SECRETS).scrub(f"it is {SECRET}.") == f"it is {reference('key')}."
