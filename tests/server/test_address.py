"""The address of a server, and what its answers mean."""

from __future__ import annotations

import json
import pickle

import pytest

from anykernel import ArgumentError, ServerAuthError, ServerError, open_server
from anykernel.server.address import Address, check_headers, check_token
from anykernel.server.answers import Answer, asks_who, error_of, hub_of

SECRET = "a-secret-token"


def test_a_token_in_the_url_is_taken_out_and_never_shown():
    address = Address(f"https://hub.example/user/ada/?token={SECRET}&reset")
    assert address.token == SECRET
    assert address.base == "https://hub.example/user/ada/"
    assert address.url("api", "kernels") == "https://hub.example/user/ada/api/kernels"
    assert SECRET not in repr(address) + address.shown("api") + address.url("api")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8888", "http://127.0.0.1:8888/"),
        ("http://127.0.0.1:8888/", "http://127.0.0.1:8888/"),
        ("HTTP://[::1]:8888/a/b", "http://[::1]:8888/a/b/"),
        ("https://ada:word@hub.example/user/ada", "https://hub.example/user/ada/"),
        (" http://host/ ", "http://host/"),
    ],
)
def test_an_address_is_joined_to_what_the_caller_gave(url, base):
    assert Address(url).base == base


def test_a_name_in_a_path_cannot_leave_its_place():
    assert Address("http://host/").url("api", "kernels", "../x?y#z") == "http://host/api/kernels/..%2Fx%3Fy%23z"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"host:8888/?token={SECRET}", "http"),
        (f"//host/?token={SECRET}", "http"),
        (f"ws://host/?token={SECRET}", "http://, not ws://"),
        (f"wss://host/?token={SECRET}", "https://, not wss://"),
        (f"http:///?token={SECRET}", "host"),
        (f"http://host:port/?token={SECRET}", "port"),
        (f"http://host/?token={SECRET}\nx", "control"),
        ("", "http"),
        (None, "str"),
        (b"http://host/", "str"),
    ],
)
async def test_an_address_that_cannot_be_used_is_refused_with_what_to_write(url, told):
    with pytest.raises(ArgumentError, match=told) as caught:
        async with open_server(url):
            pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("token", ["", "line\n", " x", "x ", "é", 1, b"x"])
async def test_a_token_that_no_header_can_hold_is_refused_without_being_told(token):
    with pytest.raises(ArgumentError) as caught:
        async with open_server("http://127.0.0.1:1/", token=token):
            pass
    assert "token" in str(caught.value)
    assert str(token).strip() == "" or str(token).strip() not in str(caught.value).split()


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": -1}, {"timeout": "1"}, {"reconnect_timeout": -1}, {"reconnect_timeout": float("nan")},
        {"ssl_context": True}, {"proxy": "host:80"}, {"proxy": 1}, {"headers": {"a b": "x"}}, {"headers": {"a": 1}},
        {"headers": "a: b"}, {"headers": {"a": f"{SECRET}\nb: c"}},
    ],
)  # fmt: skip
async def test_an_option_that_cannot_be_used_is_refused(options):
    with pytest.raises(ArgumentError) as caught:
        async with open_server("http://127.0.0.1:1/", **options):
            pass
    assert next(iter(options)).rstrip("s") in str(caught.value)
    assert SECRET not in str(caught.value)


def test_headers_and_tokens_that_can_be_sent_are_taken():
    assert check_headers({"X-One": "a b", "Cookie": "c"}) == {"X-One": "a b", "Cookie": "c"}
    assert check_headers(None) == {}
    assert check_token("abc.DEF-1_2~+/=") == "abc.DEF-1_2~+/="


def answer(status, body="", content_type="application/json", **headers):
    data = body if isinstance(body, bytes) else (json.dumps(body) if not isinstance(body, str) else body).encode()
    return Answer(status, {"content-type": content_type, **headers}, data)


PAGE = f"<html><script>window.token = '{SECRET}'</script></html>"


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        (answer(401, {"message": "Unauthorized"}), ServerAuthError, "token"),
        (answer(403, {"message": "Forbidden"}), ServerAuthError, "Forbidden"),
        (answer(403, {"message": "'_xsrf' argument missing from POST"}), ServerAuthError, "not logged in"),
        (answer(403, {"message": "Resource Limit"}), ServerError, "Resource Limit"),
        (
            answer(403, {"reason": "User root is not authorized to start kernel"}),
            ServerError,
            "not authorized to start",
        ),
        (answer(302, location="/login?next=%2F"), ServerAuthError, "login"),
        (answer(302, location="/hub/user/ada/api"), ServerError, "does not run"),
        (answer(424, PAGE, "text/html"), ServerError, "does not run"),
        (answer(301, location="https://elsewhere/"), ServerError, "elsewhere"),
        (answer(404, PAGE, "text/html"), ServerError, "whole path"),
        (answer(404, {"message": "Kernel does not exist: x"}), ServerError, "Kernel does not exist"),
        (answer(200, PAGE, "text/html"), ServerError, "does not answer as a Jupyter server"),
        (answer(500, {"message": "Unhandled error"}), ServerError, "Unhandled error"),
        (answer(502, PAGE, "text/html"), ServerError, "proxy"),
        (answer(503, b"\xff"), ServerError, "proxy"),
        (answer(400, {"message": "x" * 10_000}), ServerError, "xxx"),
        (answer(400, "[" * 100_000), ServerError, "refused"),
    ],
)
def test_each_answer_becomes_an_error_that_says_what_to_do(given, kind, told):
    error = error_of(given, "http://host/api")
    assert type(error) is kind
    assert told in str(error)
    assert error.status == given.status
    assert error.url == "http://host/api"
    assert SECRET not in str(error) + repr(error)
    assert len(str(error)) < 600
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.status) == (kind, str(error), error.status)


def test_only_who_may_be_helped_by_a_fresh_token_is_asked_for_one():
    assert asks_who(answer(401, PAGE, "text/html"))
    assert asks_who(answer(403, {"message": "Forbidden"}))
    assert not asks_who(answer(403, {"message": "Resource Limit"}))
    assert not asks_who(answer(500))
    assert hub_of(answer(302, location="https://h/hub/user/ada/api"))
    assert not hub_of(answer(302, location="/login"))
