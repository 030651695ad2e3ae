"""A few thousand mutated frames; `scripts/torture/run fuzz` tries a million."""

import random

import pytest

from moorage_protocol import jsonrpc
from scripts.torture.fuzz import Decode, Trial, by_plain_json, fuzz, without_a_look_at_the_text


def problems_of(decode: Decode) -> list[str]:
    trial = Trial(decode)
    mutator = fuzz(trial, 3000, random.Random(7), lambda _: None)
    if decode is jsonrpc.decode:
        for frame in mutator.kept:
            trial.reply(frame)
    return trial.problems


def test_mutated_frame_is_a_message_or_one_of_our_errors_and_the_right_one() -> None:
    assert problems_of(jsonrpc.decode) == []


@pytest.mark.parametrize("decode", [by_plain_json, without_a_look_at_the_text])
def test_decoder_with_a_bug_is_noticed(decode: Decode) -> None:
    assert problems_of(decode) != []
