"""A malformed optional field counts as absent (Agent Client Protocol); everything else does not."""

import json
from typing import Any

import msgspec
import pytest

from moorage_protocol import lenient
from moorage_protocol.acp import (
    ClientCapabilities,
    ContentBlock,
    FileSystemCapabilities,
    ListParams,
    LoadParams,
    PermissionResult,
    Selected,
    Text,
    ToolCallFields,
)
from moorage_protocol.errors import InvalidParams
from moorage_protocol.lenient import MAX_DROPPED, MAX_FORGIVEN_BYTES, decode_own
from moorage_protocol.moorage import (
    AttachParams,
    CancelParams,
    ClientHello,
    ConfigureParams,
    EntriesParams,
    InitializeParams,
    KillParams,
    NewParams,
    PromptParams,
)


SESSION = "a" * 26

Json = dict[str, object]


def decode(value: object, shape: type[Any]) -> Any:
    return lenient.decode(json.dumps(value).encode(), shape)


def objection(value: object, shape: type[Any]) -> str:
    with pytest.raises(InvalidParams) as caught:
        decode(value, shape)
    return caught.value.message


def test_unknown_fields_are_ignored() -> None:
    given: Json = {
        "protocolVersion": 1,
        "hello": [{}],
        "clientCapabilities": {"fs": {"x": 1}, "y": 2},
    }

    assert decode(given, InitializeParams) == decode({"protocolVersion": 1}, InitializeParams)


@pytest.mark.parametrize("malformed", [7, "x", [], True, [{}]])
def test_malformed_optional_object_counts_as_absent(malformed: object) -> None:
    given = {
        "protocolVersion": 1,
        "clientInfo": malformed,
        "clientCapabilities": malformed,
        "_meta": malformed,
    }

    assert decode(given, InitializeParams) == decode({"protocolVersion": 1}, InitializeParams)


def test_only_the_malformed_member_of_an_object_is_dropped() -> None:
    given = {
        "protocolVersion": 1,
        "clientCapabilities": {"fs": {"readTextFile": "yes", "writeTextFile": True}, "terminal": 1},
    }

    assert decode(given, InitializeParams).client_capabilities == ClientCapabilities(
        fs=FileSystemCapabilities(read_text_file=False, write_text_file=True)
    )


def test_optional_object_with_a_member_missing_counts_as_absent() -> None:
    given = {"protocolVersion": 1, "clientInfo": {"version": "1"}}

    assert decode(given, InitializeParams).client_info is None


@pytest.mark.parametrize("null", ["mcpServers", "additionalDirectories"])
def test_null_is_an_empty_list_where_clients_send_it(null: str) -> None:
    assert decode({"cwd": "/", null: None, "sessionId": SESSION}, LoadParams).cwd == "/"


@pytest.mark.parametrize("malformed", [5, "x", {"a": 1}])
def test_malformed_optional_list_counts_as_absent(malformed: object) -> None:
    params = decode({"cwd": "/", "mcpServers": malformed, "sessionId": SESSION}, LoadParams)

    assert params.mcp_servers is None


def test_malformed_optional_text_counts_as_absent() -> None:
    assert decode({"cwd": 5, "cursor": []}, ListParams) == ListParams()


def test_malformed_required_field_is_refused_by_name() -> None:
    assert "protocolVersion" in objection({"protocolVersion": "1"}, InitializeParams)
    assert "sessionId" in objection({"sessionId": 5, "prompt": []}, PromptParams)
    assert "sessionId is missing" in objection({"prompt": []}, PromptParams)


@pytest.mark.parametrize("params", [5, "x", None, [], [1], True])
def test_params_that_are_no_object_are_refused(params: object) -> None:
    assert "Invalid params" in objection(params, PromptParams)


def test_params_without_required_fields_may_be_empty() -> None:
    assert decode({}, ListParams) == ListParams()


# ---- never inside an array


@pytest.mark.parametrize(
    "block",
    [{"type": "text"}, {"type": "text", "text": 5}, {"type": "song"}, {}, 5, None],
)
def test_nothing_is_dropped_from_an_array(block: object) -> None:
    class Blocks(msgspec.Struct):
        blocks: list[ContentBlock] | None = None

    objection({"blocks": [{"type": "text", "text": "x"}, block]}, Blocks)


def test_malformed_option_inside_an_array_is_not_forgiven_either() -> None:
    given = {"toolCallId": "x", "locations": [{"path": "/a", "line": "one"}]}

    assert "locations" in objection(given, ToolCallFields)


def test_wrong_tag_of_a_required_choice_is_refused() -> None:
    objection({"outcome": {"outcome": "maybe"}}, PermissionResult)
    objection({"outcome": {"outcome": "selected"}}, PermissionResult)
    objection({"outcome": "selected"}, PermissionResult)

    given = {"outcome": {"outcome": "selected", "optionId": "yes", "_meta": 7}}
    assert decode(given, PermissionResult).outcome == Selected(option_id="yes")


# ---- never what is ours


@pytest.mark.parametrize(
    ("meta", "shape", "given"),
    [
        ({"timeoutSeconds": "10"}, PromptParams, {"sessionId": SESSION, "prompt": []}),
        ({"onBusy": "refuze"}, PromptParams, {"sessionId": SESSION, "prompt": []}),
        ({"promptId": 5}, PromptParams, {"sessionId": SESSION, "prompt": []}),
        ({"generation": "1"}, CancelParams, {"sessionId": SESSION}),
        ({"scope": "everything"}, CancelParams, {"sessionId": SESSION}),
        ({"mode": "kode"}, NewParams, {"cwd": "/"}),
        ({"labels": {"a": 5}}, NewParams, {"cwd": "/"}),
        ({"overrides": {"temperature": "hot"}}, NewParams, {"cwd": "/"}),
        ({"tuiId": 5}, InitializeParams, {"protocolVersion": 1}),
        (5, InitializeParams, {"protocolVersion": 1}),
        (None, InitializeParams, {"protocolVersion": 1}),
    ],
)
def test_malformed_extension_of_ours_is_refused_and_never_ignored(
    meta: object, shape: type[Any], given: dict[str, object]
) -> None:
    assert "_meta.moorage" in objection({**given, "_meta": {"moorage": meta}}, shape)


def test_extensions_of_others_are_left_alone() -> None:
    given: Json = {"protocolVersion": 1, "_meta": {"zed.dev": 5, "moorage": {}, "traceparent": []}}

    assert decode(given, InitializeParams).meta.moorage == ClientHello()


@pytest.mark.parametrize(
    ("given", "shape", "field"),
    [
        ({"overrides": {"temperature": "hot"}}, ConfigureParams, "overrides.temperature"),
        ({"overrides": {"model": 5}}, ConfigureParams, "overrides.model"),
        ({"afterSeq": "5"}, AttachParams, "afterSeq"),
        ({"access": "viewer"}, AttachParams, "access"),
        ({"after": 0, "kinds": "message"}, EntriesParams, "kinds"),
        ({"after": 0, "limit": 1.5}, EntriesParams, "limit"),
        ({"reason": 5}, KillParams, "reason"),
    ],
)
def test_methods_of_ours_forgive_nothing(
    given: dict[str, object], shape: type[Any], field: str
) -> None:
    frame = json.dumps({"sessionId": SESSION, **given}).encode()

    with pytest.raises(InvalidParams) as caught:
        decode_own(frame, shape)

    assert field in caught.value.message


def test_methods_of_ours_ignore_what_they_do_not_know() -> None:
    frame = json.dumps({"sessionId": SESSION, "hello": 1, "_meta": 5}).encode()

    assert decode_own(frame, KillParams) == KillParams(session_id=SESSION)


@pytest.mark.parametrize("raw", [b"", b"{", b'"\x80"', b"[]", b"5"])
def test_methods_of_ours_refuse_what_is_no_object(raw: bytes) -> None:
    with pytest.raises(InvalidParams):
        decode_own(raw, KillParams)


# ---- bounds


def test_forgiveness_ends_somewhere() -> None:
    names = [f"f{number}" for number in range(MAX_DROPPED + 1)]
    shape = msgspec.defstruct("Many", [(name, int, 0) for name in names])

    assert decode(dict.fromkeys(names[1:], "x"), shape) == shape()
    objection(dict.fromkeys(names, "x"), shape)


def test_large_value_is_taken_as_it_should_be_or_not_at_all() -> None:
    text = "x" * MAX_FORGIVEN_BYTES
    blocks = [{"type": "text", "text": text}]

    assert decode({"sessionId": SESSION, "prompt": blocks}, PromptParams).session_id == SESSION
    assert "_meta" in objection({"sessionId": SESSION, "prompt": blocks, "_meta": 7}, PromptParams)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400 + ".0"])
@pytest.mark.parametrize(
    ("frame", "shape"),
    [
        ('{"sessionId":"s","overrides":{"temperature":%s}}', ConfigureParams),
        (
            '{"sessionId":"s","prompt":[],"_meta":{"moorage":{"timeoutSeconds":%s}}}',
            PromptParams,
        ),
        ('{"protocolVersion":1,"clientInfo":5,"unknown":%s}', InitializeParams),
    ],
)
def test_number_beyond_all_floats_is_no_number(frame: str, shape: type[Any], number: str) -> None:
    with pytest.raises(InvalidParams):
        lenient.decode((frame % number).encode(), shape)


@pytest.mark.parametrize("raw", [b"", b"{", b"[", b'"\x80"', b"nul", b"{} {}"])
def test_bytes_that_are_no_json_are_invalid_params(raw: bytes) -> None:
    with pytest.raises(InvalidParams):
        lenient.decode(raw, InitializeParams)


def test_well_formed_value_is_read_in_one_go() -> None:
    assert lenient.decode(b'{"type":"text","text":"x"}', Text) == Text(text="x")
